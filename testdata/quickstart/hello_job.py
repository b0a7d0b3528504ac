"""The job of the quickstart: uses the packages, the files and the variables of its image."""

import os
import pathlib
import sys

import requests
import yaml

workspace = pathlib.Path(os.environ["WORKSPACE"])
testbed = yaml.safe_load(pathlib.Path(os.environ["TESTBED"]).read_text())
request = requests.Request("GET", "https://example.com/", params={"job": "hello"}).prepare()

assert pathlib.Path.cwd() == workspace, pathlib.Path.cwd()
assert sys.prefix == os.environ["VIRTUAL_ENV"], sys.prefix
assert (workspace / "installation" / "build.yaml").is_file()
assert request.url == "https://example.com/?job=hello"

print(f"python {sys.version.split()[0]}, pyyaml {yaml.__version__}, requests {requests.__version__}")
print(f"testbed {testbed['testbed']['name']}: {', '.join(testbed['devices'])}")
print("quickstart: job passed")
