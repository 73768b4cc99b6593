import subprocess
import sys

from bnhead.runs.provenance import source_sha256


def test_the_source_hash_is_of_every_module_and_the_same_in_every_process():
    code = "from bnhead.runs.provenance import source_sha256; print(source_sha256())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == source_sha256() and len(source_sha256()) == 64
