"""The inspector: judges what the kernel cannot, and writes verdicts back."""
