"""Policy: what a YAML file says, what it means, and the tables the kernel walks.

`read` makes a `model.Policy` of a file, `evaluate` is its meaning rule by rule,
`compiler` turns it into the contents of the policy maps, `names` tells others
which rule a number stands for. All of it is pure but for reading and writing files.
"""
