"""asyncio without OpenSSL, and with it once it is needed; each in an interpreter of its own."""

import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def run(code):
    """Runs ``code`` in a fresh interpreter without site packages, which may import anything."""
    program = f"import sys\nsys.path.insert(0, {str(PACKAGE)!r})\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise AssertionError(done.stderr)


class Lean(unittest.TestCase):
    def test_a_worker_does_without_openssl(self):
        run(
            """
            from plugincore.lean import import_asyncio
            import_asyncio()
            from plugincore import worker
            loaded = {"ssl", "_ssl", "_hashlib"} & set(sys.modules)
            assert not loaded, loaded
            """
        )

    def test_a_plugin_that_needs_tls_has_it(self):
        # Ciphers without certificates, so that the test needs none.
        run(
            """
            from plugincore.lean import import_asyncio
            import_asyncio()
            import asyncio, ssl

            def context(kind):
                made = ssl.SSLContext(kind)
                made.check_hostname = False
                made.verify_mode = ssl.CERT_NONE
                made.maximum_version = ssl.TLSVersion.TLSv1_2
                made.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
                return made

            async def main():
                async def shout(reader, writer):
                    writer.write((await reader.readline()).upper())
                    await writer.drain()
                    writer.close()

                server = await asyncio.start_server(
                    shout, "127.0.0.1", 0, ssl=context(ssl.PROTOCOL_TLS_SERVER)
                )
                port = server.sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context(ssl.PROTOCOL_TLS_CLIENT)
                )
                writer.write(b"hello\\n")
                assert await reader.readline() == b"HELLO\\n"
                writer.close()
                server.close()

            asyncio.run(main())
            """
        )

    def test_an_interpreter_that_has_asyncio_already_is_left_alone(self):
        run(
            """
            import asyncio, ssl
            from plugincore.lean import import_asyncio
            import_asyncio()
            assert asyncio.base_events.ssl is ssl
            """
        )


if __name__ == "__main__":
    unittest.main()
