"""Made library-v1.db.xz, a library of the first schema version; kept to show what is in it.

It was run once, with the code that wrote schema version 1. Running it again with later code would
make a library of a later version, which is not what the file is for.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_library import SPACE, item, state, vectors

from clipsearch.library import Batch, Library


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "v1.clipsearch"
        with Library.open(folder, create=True) as library:
            library.set_setting("model", "embedded")
            with library.writer() as writer:
                root = writer.add_root(Path("/home/someone/Photos"))
                space = writer.add_space(
                    SPACE, address="embedded", runtime="torch-cpu", precision="f32"
                )
                writer.activate_space(space.id)
                names = ["aa", "bb", "cc", "dd"]
                writer.commit(
                    Batch(
                        new_items=[item(name) for name in names],
                        vectors=(space.id, names, vectors(4)),
                        files=[
                            *(state(root, f"{name}.jpg", name) for name in names),
                            state(root, "bad.jpg", None, "it is damaged"),
                        ],
                    )
                )
                gone = [f.id for f in library.files(root.id) if f.relpath == "dd.jpg"]
                writer.commit(Batch(missing=gone))
            library.backup(folder / "copy.db")
        data = (folder / "copy.db").read_bytes()
    Path(__file__).with_name("library-v1.db.xz").write_bytes(lzma.compress(data, preset=9))


if __name__ == "__main__":
    main()
