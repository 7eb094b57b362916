"""Rule files: what an `inspect` rule of the policy refers to."""
