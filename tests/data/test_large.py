"""A file of a million rows is read without being held in memory."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys
from tunesmith.data.examples import Columns, find_reader, read_examples
reader = find_reader(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_examples(reader, Columns("text", "label"))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(found), found.text(999_999), (after - before) * 1024)
"""


def test_a_million_rows(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    filler = "x" * 150
    with open(path, "w") as file:
        file.write("text,label\n")
        file.writelines(f"row {number} {filler},label {number % 7}\n" for number in range(1_000_000))
    size = path.stat().st_size
    result = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)
    rows, grown = result.stdout.split()[0], int(result.stdout.split()[-1])
    assert rows == "1000000" and "row 999999" in result.stdout
    assert size > 150_000_000 and grown < 80_000_000, f"{grown:,} bytes for a file of {size:,}"
