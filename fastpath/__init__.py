"""The kernel half's control side: load, attach, policy, sessions."""
