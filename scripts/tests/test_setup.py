"""What `scripts/setup` finds missing, on machines made of a PATH with chosen commands."""

import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SETUP = Path(__file__).resolve().parent.parent / "setup"
# What the script itself is made of, present on every Debian.
BASE = ["sh", "mktemp", "rm", "tr", "sed", "id", "env", "dirname", "cat", "cp"]
# What temporary machines need; there unless a test takes it away.
FOR_MACHINES = ["qemu-system-x86_64", "qemu-img", "dpkg-source", "make"]
PRETEND = {
    "cc": "#!/bin/sh\nexit 0\n",
    "cc-without-libc": "#!/bin/sh\nexit 1\n",
    "python3": "#!/bin/sh\nexit 0\n",
    "python3-too-old": '#!/bin/sh\ncase "$*" in *version_info*) exit 1 ;; esac\nexit 0\n',
    "python3-without-venv": '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexit 0\n',
    "curl": "#!/bin/sh\nexit 0\n",
    "openssl": "#!/bin/sh\nexit 0\n",
    "sudo-refusing": "#!/bin/sh\nexit 1\n",
    "apt-get": "#!/bin/sh\nexit 0\n",
    # Installs what it is asked for by putting it beside itself; keeps what it was called with.
    "apt-get-installing": """#!/bin/sh
here=$(dirname "$0")
echo "$DEBIAN_FRONTEND $*" >>"$here/apt.log"
case "$*" in *install*) cp "$here/cc-to-come" "$here/cc" && cp "$here/cc-to-come" "$here/python3" ;; esac
""",
    "cargo": "#!/bin/sh\nexit 0\n",
    "id-of-root": "#!/bin/sh\necho 0\n",
    "id-of-a-user": "#!/bin/sh\necho 1000\n",
}


class SetupTest(unittest.TestCase):
    def setUp(self):
        self.bin = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.bin)
        for name in BASE:
            (self.bin / name).symlink_to(shutil.which(name))
        for name in FOR_MACHINES:
            self.put(name, "#!/bin/sh\nexit 0\n")
        self.keyring = self.bin / "keyring.gpg"
        self.keyring.touch()

    def put(self, name, text):
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def lack_machines(self):
        for name in FOR_MACHINES:
            (self.bin / name).unlink()
        self.keyring.unlink()

    def have(self, **commands):
        """Puts commands into the PATH: name=which of the pretended ones."""
        for name, pretended in commands.items():
            self.put(name.replace("_", "-"), PRETEND[pretended])

    def run_setup(self, *arguments):
        return subprocess.run(
            [self.bin / "sh", SETUP, *arguments],
            env={
                "PATH": str(self.bin),
                "TMPDIR": tempfile.gettempdir(),
                "GATEHOUSE_DEBIAN_KEYRING": str(self.keyring),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def check_plan(self, what, packages):
        done = self.run_setup("plan", what)
        self.assertEqual((done.returncode, done.stdout.split()), (0, packages), done.stderr)

    def test_a_bare_machine_lacks_everything(self):
        self.check_plan("run", ["gcc", "libc6-dev", "python3"])
        self.check_plan(
            "test", ["gcc", "libc6-dev", "python3", "python3-venv", "g++", "curl", "openssl", "openssh-client"]
        )

    def test_a_complete_machine_lacks_nothing(self):
        self.have(cc="cc", python3="python3", curl="curl", openssl="openssl", ssh="openssl", **{"c++": "cc"})
        self.check_plan("run", [])
        self.check_plan("test", [])

    def test_a_compiler_without_its_library_is_no_compiler(self):
        self.have(cc="cc-without-libc", python3="python3")
        self.check_plan("run", ["gcc", "libc6-dev"])

    def test_an_old_python_is_no_python(self):
        self.have(cc="cc", python3="python3-too-old")
        self.check_plan("run", ["python3"])

    def test_debian_python_without_ensurepip_needs_a_package_for_tests_only(self):
        self.have(cc="cc", python3="python3-without-venv", curl="curl", openssl="openssl", ssh="openssl")
        self.check_plan("run", [])
        self.check_plan("test", ["python3-venv", "g++"])

    def test_without_rights_the_one_command_is_printed(self):
        self.have(cc="cc", apt_get="apt-get", sudo="sudo-refusing", id="id-of-a-user")
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get install -y --no-install-recommends python3\n", done.stderr)

    def test_root_installs_all_that_is_missing_at_once(self):
        self.have(apt_get="apt-get-installing", id="id-of-root", cargo="cargo", cc_to_come="cc")
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 0, done.stderr)
        log = (self.bin / "apt.log").read_text().splitlines()
        self.assertEqual(len(log), 2, log)
        self.assertEqual(log[0], "noninteractive -q update")
        self.assertTrue(log[1].endswith(" gcc libc6-dev python3"), log)
        self.assertEqual(self.run_setup("run").stdout, "", "a repeat has nothing to do")
        self.assertEqual(len((self.bin / "apt.log").read_text().splitlines()), 2)

    def test_an_installation_that_installs_nothing_is_noticed(self):
        self.have(apt_get="apt-get", id="id-of-root", cargo="cargo")
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("still missing", done.stderr)

    def test_without_rust_its_installer_is_named(self):
        self.have(cc="cc", python3="python3")
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("https://rustup.rs", done.stderr)

    def test_without_apt_the_packages_are_named(self):
        self.have(cc="cc")
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("python3", done.stderr)
        self.assertNotIn("apt-get", done.stderr)

    def test_machines_need_qemu_and_what_builds_their_image(self):
        self.have(cc="cc", python3="python3")
        self.lack_machines()
        machines = ["qemu-system-x86", "qemu-utils", "dpkg-dev", "make", "debian-archive-keyring"]
        self.check_plan("run", machines)

    def test_plugins_are_served_without_machines(self):
        self.have(cc="cc", python3="python3", cargo="cargo")
        self.lack_machines()
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("qemu-system-x86", done.stderr)
        self.assertIn("without machines", done.stderr)

    def check_qemu(self, utils_version, apt_knows, suite):
        """QEMU comes from the suite that its tools, where they are there already, came from."""
        self.have(cc="cc", python3="python3", cargo="cargo", id="id-of-root")
        for name in ("grep", "tee", "touch"):
            (self.bin / name).symlink_to(shutil.which(name))
        (self.bin / "qemu-system-x86_64").unlink()
        self.put("dpkg-query", f"#!/bin/sh\nprintf %s '{utils_version}'\n")
        self.put("apt-cache", f"#!/bin/sh\necho ' release n={apt_knows},c=main'\n")
        self.put(
            "apt-get",
            '#!/bin/sh\nhere=$(dirname "$0")\necho "$*" >>"$here/apt.log"\n'
            'case "$*" in *install*) cp "$here/make" "$here/qemu-system-x86_64" ;; esac\n',
        )
        done = self.run_setup("run")
        self.assertEqual(done.returncode, 0, done.stderr)
        words = (self.bin / "apt.log").read_text().splitlines()[-1].split()
        self.assertEqual(words[-1], "qemu-system-x86")
        self.assertEqual(words[words.index("-t") + 1] if "-t" in words else None, suite)

    def test_qemu_is_the_release_s_own(self):
        self.check_qemu("1:7.2+dfsg-7+deb12u18", "bookworm", None)

    def test_qemu_is_of_backports_where_its_tools_are(self):
        release = Path("/etc/os-release").read_text(encoding="utf-8")
        name = next(x for x in release.splitlines() if x.startswith("VERSION_CODENAME="))
        suite = name.partition("=")[2] + "-backports"
        self.check_qemu("1:10.0.2+ds-2+deb13u1~bpo12+1", suite, suite)

    def test_an_unknown_word_is_refused(self):
        self.assertEqual(self.run_setup("tset").returncode, 2)
        self.assertEqual(self.run_setup().returncode, 2)


if __name__ == "__main__":
    sys.exit(unittest.main())
