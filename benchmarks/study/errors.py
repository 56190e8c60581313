"""What a study refuses."""


class StudyError(ValueError):
    """A plan, a results file or an option that a study cannot go by; says which, and what is expected."""
