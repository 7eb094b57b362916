"""What the tests of the policy language share."""

from collections.abc import Sequence

from fastpath.document import Problems, compose
from fastpath.policy.model import Policy
from fastpath.policy.read import read_policy

DIGESTS = {"web": "abc", "greeter": "def"}


def read(text: str, zones: Sequence[str] | None = None) -> tuple[Policy | None, list[str]]:
    """The policy of a text, and everything wrong with it."""
    problems = Problems()
    root = compose(text, "p.yaml", problems)
    policy = root.attempt(lambda node: read_policy(node, DIGESTS.get, zones)) if root else None
    return policy, [str(problem) for problem in problems.found]


def policy_of(text: str, zones: Sequence[str] | None = None) -> Policy:
    policy, problems = read(text, zones)
    assert not problems
    assert policy is not None
    return policy
