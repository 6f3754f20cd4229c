collect_ignore = [
    "idioms.py"
]  # a program for type checkers; a test runs it with the registries kept
