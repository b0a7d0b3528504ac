# Puts what git brought for requirements where the image has it (`place`), and says in `direct_url.json` where that came
# from (`record`): pip was given a folder of this build. `CLONES` stands before this text.
import base64
import csv
import glob
import hashlib
import json
import os
import shutil
import sysconfig


def place():
    for clone in CLONES:
        # The generated Dockerfile has no such folder: there pip runs git.
        if clone["editable"] and os.path.isdir(clone["place"]):
            shutil.copytree(clone["place"], clone["editable"], symlinks=True)


def origin(url):
    """What pip would have recorded, had it cloned the folder itself."""
    for clone in CLONES:
        folder = "file://" + clone["place"]
        if url == folder or url.startswith(folder + "/"):
            info = {"vcs": "git", "commit_id": clone["commit"]}
            if clone["revision"]:
                info["requested_revision"] = clone["revision"]
            found = {"url": clone["url"], "vcs_info": info}
            if url != folder:
                found["subdirectory"] = url[len(folder) + 1 :]
            return found


def record():
    for site_packages in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in glob.glob(os.path.join(site_packages, "*.dist-info", "direct_url.json")):
            with open(path, encoding="utf-8") as file:
                found = origin(json.load(file)["url"])
            if found:
                content = json.dumps(found, sort_keys=True).encode()
                with open(path, "wb") as file:
                    file.write(content)
                update(site_packages, os.path.relpath(path, site_packages), content)


def update(site_packages, name, content):
    path = os.path.join(site_packages, os.path.dirname(name), "RECORD")
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows = [[name, "sha256=" + digest, len(content)] if row and row[0] == name else row for row in rows]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
