"""The command that lays a library out by meaning, as one HTML file: map."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.commands import open_library
from clipsearch.counting import counted
from clipsearch.errors import StorageError, UsageError
from clipsearch.user_paths import expand_user


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="where to write the .html file"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=4000,
        metavar="N",
        help="how many pictures; of more, a sample (default %(default)s)",
    )
    parser.add_argument(
        "--layout",
        choices=["tsne", "umap"],
        default="tsne",
        help="t-SNE (the extra 'map'; the default) or UMAP (the extra 'umap')",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed, the same map (default 0)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=12.0,
        metavar="MB",
        help="how much of the file thumbnails may take (default %(default)g); the rest are dots",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = "The file holds small copies of your photos: treat it as privately as them."


def _run(arguments: Namespace) -> int:
    to = expand_user(arguments.to).absolute()
    if to.suffix.lower() not in (".html", ".htm"):
        raise UsageError(reason=f"A map is an .html file, not {to}")
    if to.exists() and not arguments.overwrite:
        raise UsageError(reason=f"{to} is there already: add --overwrite, or name another")
    if not 0 <= arguments.seed < 2**32:
        raise UsageError(reason=f"The seed must be between 0 and 2^32, not {arguments.seed}")
    library, settings = open_library(arguments)
    from clipsearch.meaning_map import lay_out, write_map

    with library:
        laid_out = lay_out(
            library,
            settings=settings,
            limit=arguments.limit,
            layout=arguments.layout,
            seed=arguments.seed,
            notify=say,
        )
        try:
            shown = write_map(
                library, laid_out, to, title=library.path.stem, budget_mb=arguments.budget
            )
        except OSError as error:
            raise StorageError(
                path=to, reason=error.strerror or error, advice="choose another place"
            ) from error
    names = [region.name for region in laid_out.regions]
    if arguments.json:
        print_json(
            {
                "file": to,
                "pictures": len(laid_out.items),
                "of": laid_out.total,
                "thumbnails": shown,
                "regions": names,
            }
        )
    else:
        show(
            f"Wrote {to}: {counted(len(laid_out.items), 'picture')}, "
            f"{counted(len(names), 'region')}"
        )
    return errors.DONE


show_map = Command(_configure, _run)
