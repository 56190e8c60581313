"""Lists the packages; everything else about the project is in pyproject.toml.

``integrations/`` stands beside ``cycledistill/`` and is installed inside it. setuptools can find packages but not
find and rename them in one step, so the renaming is done here, and a new integration needs no edit.
"""

from setuptools import find_packages, setup

setup(
    package_dir={"cycledistill.integrations": "integrations"},
    packages=[
        # cycledistill/integrations is a link for bare checkouts and type checkers: never the source of a build.
        *find_packages(include=["cycledistill", "cycledistill.*"], exclude=["cycledistill.integrations*"]),
        *(f"cycledistill.{name}" for name in find_packages(include=["integrations", "integrations.*"])),
    ],
)
