"""Make a folder of links to installed distributions and all they need: link_distributions.py FOLDER NAME ..."""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

folder, wanted = Path(sys.argv[1]), sys.argv[2:]
done = {"setuptools"}  # mmpose's recipe has its own bound of it
folder.mkdir()
while wanted:
    name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
    if name in done:
        continue
    done.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:  # for another platform or Python
        continue
    wanted += [re.match(r"[\w.-]+", each)[0] for each in found.requires or () if "extra ==" not in each]
    for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(found.locate_file(top))
