"""Written for the ancestor's release 20.5, from its document alone."""

import io
import os

from pyatsimagebuilder import Image, build

config = {
    "tag": "mypyatsimage:latest",
    "python": "3.11",
    "env": {"VAR1": "VALUE1", "DEBUG": True},
    "files": [{"dirname/file3": os.environ["FILE"]}],
    "packages": ["${WORKSPACE}/pib_hello-1.0-py3-none-any.whl"],
    "pip-config": {"global": {"format": "columns", "disable-pip-version-check": 1}},
    "proxy": {"NO_PROXY": "*.test.example.com,.example2.com"},
}
config["files"].append(os.environ["WHEEL"])
log = io.StringIO()
image = build(config=config, stream=log)
assert "pib" in log.getvalue(), log.getvalue()

facts = image.inspect()
assert facts["Id"] == image.id and image.id.startswith("sha256:"), facts
assert facts["RepoTags"] == ["mypyatsimage:latest"], facts
assert facts["Created"].endswith("Z") and facts["Parent"] == "", facts
assert facts["Os"] == "linux" and facts["Architecture"] and facts["Size"] > 1000000, facts
assert "VAR1=VALUE1" in facts["Config"]["Env"] and "DEBUG=True" in facts["Config"]["Env"], facts
assert facts["Config"]["WorkingDir"] == "/workspace", facts
assert facts["RootFS"]["Type"] == "layers" and len(facts["RootFS"]["Layers"]) > 2, facts
assert image.tag == "mypyatsimage:latest"

username, password = os.environ["REGISTRY_LOGIN"].split(":", 1)
registry = os.environ["REGISTRY"]
image.push(remote_tag=registry + "/myrepo/custom:latest", credentials={"username": username, "password": password})
assert registry + "/myrepo/custom:latest" in image.inspect()["RepoTags"]

same = Image(image.id, tag="mypyatsimage")
assert same.tag == "mypyatsimage:latest"
same.tag = "mypyatsimage:2"
assert same.tag == "mypyatsimage:2" and "mypyatsimage:2" in image.inspect()["RepoTags"]

# Alternative folders for the context, and no image after a dry run.
assert build(config, path="context", tag="other:1", dry_run=True, verbose=True) is None
assert os.path.isfile("context/image/workspace/dirname/file3") is False
assert build(config, keep_context=True, path="kept", dry_run=True) is None
assert os.path.isfile("kept/image/workspace/dirname/file3")
print("unchanged")
