"""What the tests of the policy language share."""

from fastpath.document import Problems, compose
from fastpath.policy.model import Policy
from fastpath.policy.read import read_policy

DIGESTS = {"web": "abc", "greeter": "def"}


def read(text: str) -> tuple[Policy | None, list[str]]:
    """The policy of a text, and everything wrong with it."""
    problems = Problems()
    root = compose(text, "p.yaml", problems)
    policy = root.attempt(lambda node: read_policy(node, DIGESTS.get)) if root else None
    return policy, [str(problem) for problem in problems.found]


def policy_of(text: str) -> Policy:
    policy, problems = read(text)
    assert not problems
    assert policy is not None
    return policy
