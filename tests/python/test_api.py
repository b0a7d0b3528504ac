"""What the package promises beside what the ancestor did. The tests share a store, so that steps run once."""

import asyncio
import contextlib
import inspect
import io
import json
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

import pyatsimagebuilder
from pyatsimagebuilder import (
    BaseError,
    BuildFileError,
    Error,
    Image,
    ImageBuilder,
    ImageNotFound,
    Interrupted,
    OptionsError,
    PushError,
    SourceError,
    StepError,
    build,
    build_async,
)

BASE = os.environ["BASE"]
REGISTRY = os.environ["REGISTRY"]
USERNAME, PASSWORD = os.environ["REGISTRY_LOGIN"].split(":", 1)
CONFIG = {"tag": "api:1", "python": "3.11", "base": BASE, "system-packages": []}
SLEEPS = {**CONFIG, "cmds": {"pre": "RUN echo begun; sleep 600"}}


def processes():
    """The command lines of processes that work in this store."""
    store = os.environ["PYATS_IMAGE_BUILD_STORE"]
    found = []
    for process in pathlib.Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes()
            words = (process / "cmdline").read_bytes().split(b"\0")
            if store.encode() in environment and words[0].endswith(b"pyats-image-build"):
                found.append(b" ".join(words).decode())
    return found


class When:
    """Acts when the step that sleeps has begun."""

    def __init__(self, act):
        self.act = act

    def __call__(self, event):
        if event["event"] == "output" and event["line"] == "begun":
            self.act()


class Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def nothing_is_left(self):
        deadline = time.monotonic() + 20
        while processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(processes(), [])
        store = pathlib.Path(os.environ["PYATS_IMAGE_BUILD_STORE"])
        self.assertEqual([str(path) for path in (store / "tmp").iterdir()], [])


class Builds(Test):
    def test_signatures(self):
        parameters = list(inspect.signature(build).parameters.values())[:8]
        defaults = [(parameter.name, parameter.default) for parameter in parameters]
        self.assertEqual(
            defaults,
            [
                ("config", {}),
                ("path", None),
                ("tag", None),
                ("keep_context", False),
                ("verbose", False),
                ("stream", None),
                ("no_cache", False),
                ("dry_run", False),
            ],
        )
        self.assertEqual(list(inspect.signature(Image).parameters)[:2], ["image_id", "tag"])
        self.assertEqual(list(inspect.signature(Image.push).parameters)[1:3], ["remote_tag", "credentials"])
        run = inspect.signature(ImageBuilder.run).parameters
        self.assertEqual(list(run)[1:], ["keep_context", "tag", "no_cache", "dry_run"])

    def test_image(self):
        image = build(CONFIG)
        self.assertRegex(image.id, "^sha256:[0-9a-f]{64}$")
        self.assertEqual((image.tag, image.platform), ("api:1", "linux/" + image.inspect()["Architecture"]))
        self.assertEqual(Image(image.id[7:19]).inspect(), image.inspect())
        self.assertEqual(Image(image.id, "docker.io/library/api:1").tag, "api:1")
        image.tag = "api:2"
        self.assertIn("api:2", image.inspect()["RepoTags"])
        for wrong in (
            lambda: Image("sha256:" + "0" * 64),
            lambda: Image("nothing"),
            lambda: Image(image.id, "api:3"),
            lambda: build({**CONFIG, "tag": None}).push(),
        ):
            with self.assertRaises(ImageNotFound) as raised:
                wrong()
            self.assertIsInstance(raised.exception, KeyError)

    def test_keywords(self):
        image = build(
            {"python": "3.11", "system-packages": []},
            base=BASE,
            tag="api:4",
            outputs=["oci-dir:out"],
            platform="linux/" + build(CONFIG).inspect()["Architecture"],
            runner="auto",
            store=os.environ["PYATS_IMAGE_BUILD_STORE"],
            arguments=["--label", "a=b"],
        )
        self.assertEqual(image.inspect()["Config"]["Labels"]["a"], "b")
        self.assertTrue(os.path.isfile("out/index.json"))
        file = pathlib.Path("build.yaml")
        file.write_text(json.dumps(CONFIG))
        self.assertEqual(build(file).id, build(str(file)).id)

    def test_logs(self):
        stream, printed, events = io.StringIO(), io.StringIO(), []
        # A step that never was.
        config = {**CONFIG, "cmds": {"pre": f"RUN : {time.time()}; echo word-of-a-step"}}
        with self.assertLogs("pyatsimagebuilder", logging.DEBUG) as logged, contextlib.redirect_stdout(printed):
            build(config, stream=stream, verbose=True, progress=events.append)
        self.assertIn("  | word-of-a-step\n", stream.getvalue())
        self.assertEqual(printed.getvalue(), stream.getvalue())
        self.assertIn("word-of-a-step", [record.getMessage() for record in logged.records])
        kinds = {event["event"] for event in events}
        self.assertTrue({"started", "finished", "output", "built"} <= kinds, kinds)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertIsNone(build(CONFIG, dry_run=True, stream=stream))
        self.assertEqual(printed.getvalue(), "")
        self.assertIn("base: ", stream.getvalue())
        for no_cache, fate in ((False, "cached"), (True, "runs")):
            plan = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()):
                build(CONFIG, dry_run=True, verbose=True, no_cache=no_cache, stream=plan)
            self.assertIn(f"step: virtual environment: {fate}", plan.getvalue())

    def test_stream_gets_lines_as_they_come(self):
        class Stream:
            def write(self, text):
                if text == "  | begun\n":
                    raise LookupError("seen")

        with self.assertRaisesRegex(LookupError, "seen"):
            build(SLEEPS, stream=Stream())
        self.nothing_is_left()

    def test_builder(self):
        logger = logging.getLogger("somebody's")
        with self.assertLogs(logger, logging.INFO):
            builder = ImageBuilder({**CONFIG, "env": {"A": "b"}}, logger)
            image = builder.run(tag="builder:1", no_cache=False)
        self.assertEqual((builder.image, image.tag), (image, "builder:1"))
        self.assertIn("A=b", image.inspect()["Config"]["Env"])
        planned = ImageBuilder(CONFIG, logger).run(dry_run=True)
        self.assertIsNone(planned.id)
        with self.assertRaises(ImageNotFound):
            planned.push("nowhere:1")

    def test_texts(self):
        texts = {
            "QUOTES": "\"'\\",
            "SMILE": "\U0001f600 \x85\u2028",
            "LINES": "a\tb\nc",
            "NUMBER": 12,
            "HALF": 0.5,
            "YES": True,
            "NONE": None,
        }
        image = build({**CONFIG, "env": texts})
        env = dict(line.split("=", 1) for line in image.inspect()["Config"]["Env"])
        self.assertEqual(env["SMILE"], texts["SMILE"])
        self.assertEqual((env["NUMBER"], env["HALF"], env["YES"], env["NONE"]), ("12", "0.5", "True", ""))


class Failures(Test):
    def refused(self, kind, config, *words, **options):
        with self.assertRaises(kind) as raised:
            build(config, **options)
        error = raised.exception
        self.assertIs(type(error), kind, error)
        self.assertIsInstance(error, Error)
        for word in words:
            self.assertIn(word, str(error))
        same = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(same), str(same)), (kind, str(error)))
        self.nothing_is_left()
        return error

    def test_build_files(self):
        for config, *words in (
            ({"python": 3.1}, "3.10", "python: '3.10'"),
            ({"pakages": []}, "pakages", "packages"),
            ({"packages": "requests"}, "packages", "list"),
            ({"packages": [object()]}, "packages[0]", "object"),
            ({"env": {("a",): "b"}}, "env", "tuple"),
            ({"env": {"A": "\ud800"}}, "Unicode"),
            ({"tag": "Upper Case"}, "tag"),
            ([], "mapping", "list"),
            (None, "mapping", "NoneType"),
        ):
            with self.subTest(config=config):
                error = self.refused(BuildFileError, config, *words)
                self.assertIsInstance(error, ValueError)
        endless = {}
        endless["env"] = endless
        self.refused(BuildFileError, endless, "nested")
        self.refused(BuildFileError, pathlib.Path("missing.yaml"), "missing.yaml")
        self.refused(BuildFileError, {**CONFIG, "env": {"A": "%ENV{NOT_SET}"}}, "NOT_SET")

    def test_what_fails(self):
        self.refused(OptionsError, CONFIG, "--nonsense", arguments=["--nonsense"])
        self.refused(OptionsError, CONFIG, "Not A Tag", tag="Not A Tag")
        self.refused(SourceError, {**CONFIG, "files": ["/no/such/file"]}, "/no/such/file")
        self.refused(BaseError, CONFIG, "nothing", base=f"{REGISTRY}/nothing:1")
        failing = {**CONFIG, "cmds": {"pre": "RUN echo last words; exit 3"}}
        stream = io.StringIO()
        error = self.refused(StepError, failing, "last words", "3", stream=stream)
        self.assertEqual(error.tail, ["last words"])
        self.assertIn("error: ", stream.getvalue())

    def test_pushes(self):
        image = build(CONFIG)
        target = f"{REGISTRY}/api/pushed:1"
        commands = []
        said = image.push(
            target, {"username": USERNAME, "password": PASSWORD}, progress=lambda _: commands.extend(processes())
        )
        self.assertRegex(said, f"^{target}@sha256:[0-9a-f]{{64}}$")
        self.assertTrue(commands)
        self.assertFalse([command for command in commands if PASSWORD in command])
        for credentials in (None, {"username": USERNAME, "password": "wrong-word"}):
            with self.assertRaises(PushError) as raised:
                image.push(f"{REGISTRY}/api/refused:1", credentials)
            self.assertNotIn("wrong-word", str(raised.exception))

    def test_a_program_that_is_not_there(self):
        here = os.path.join(os.path.dirname(sys.executable), "pyats-image-build")
        os.rename(here, here + ".away")
        try:
            with unittest.mock.patch.dict(os.environ, PATH=""), self.assertRaisesRegex(Error, "cannot be found"):
                build(CONFIG)
        finally:
            os.rename(here + ".away", here)


class Interruptions(Test):
    def test_keyboard(self):
        with self.assertRaises(KeyboardInterrupt):
            build(SLEEPS, progress=When(lambda: os.kill(os.getpid(), signal.SIGINT)))
        self.nothing_is_left()

    def test_two_threads(self):
        images = {}

        def of(number):
            images[number] = build({**CONFIG, "tag": f"threads:{number}", "env": {"NUMBER": number}})

        threads = [threading.Thread(target=of, args=[number]) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, image in images.items():
            self.assertIn(f"NUMBER={number}", image.inspect()["Config"]["Env"])
        self.assertEqual(len(images), 2)

    def test_end_of_the_interpreter(self):
        script = (
            "import os, sys, threading\n"
            "from pyatsimagebuilder import build\n"
            "begun = threading.Event()\n"
            "tell = lambda event: event.get('line') == 'begun' and begun.set()\n"
            f"arguments = dict(config={SLEEPS!r}, progress=tell)\n"
            "threading.Thread(target=build, kwargs=arguments, daemon=True).start()\n"
            "begun.wait(60)\n"
        )
        for end in ("sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"):
            with self.subTest(end=end):
                subprocess.run([sys.executable, "-c", script + end], check=False, timeout=60, stderr=subprocess.DEVNULL)
                self.nothing_is_left()

    def test_asyncio(self):
        async def both():
            return await asyncio.gather(build_async(CONFIG), build_async(CONFIG, tag="async:1"))

        one, other = asyncio.run(both())
        self.assertEqual((one.tag, other.tag), ("api:1", "async:1"))

        async def cancelled():
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(
                build_async(SLEEPS, progress=When(lambda: loop.call_soon_threadsafe(task.cancel)))
            )
            await task

        with self.assertRaises(asyncio.CancelledError):
            asyncio.run(cancelled())
        self.nothing_is_left()

    def test_end_of_the_program(self):
        def end():
            for process in pathlib.Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[1]
                    if parent == str(os.getpid()) and words[0].endswith(b"pyats-image-build"):
                        os.kill(int(process.name), signal.SIGTERM)

        with self.assertRaises(Interrupted):
            build(SLEEPS, progress=When(end))
        self.nothing_is_left()


class Module(unittest.TestCase):
    def test_versions(self):
        program = [sys.executable, "-m", "pyatsimagebuilder", "--version"]
        said = subprocess.check_output(program, text=True).split()[-1]
        self.assertEqual(said, pyatsimagebuilder.__version__)


if __name__ == "__main__":
    unittest.main()
