"""`page`: the lab in a browser, as static files."""

from pathlib import Path

from ..runtime.progress import progress

ABOUT = "write the lab as a page of static files that runs the demo's graphs in a browser (needs npm)"
EXAMPLE = "--output build/page --serve 8000"


def add_options(parser) -> None:
    parser.add_argument("--output", type=Path, default=Path("build/page"), metavar="FOLDER", help="where the page goes")
    parser.add_argument("--serve", type=int, metavar="PORT", help="then serve it on 127.0.0.1; 0: a free port")


def run(args) -> int:
    from ..course.page import site

    files = site.build(args.output, progress())
    size = sum(path.stat().st_size for path in files if path.suffix != ".gz")
    print(f"{args.output}: {len(files)} files, {size / 1e6:.1f} MB")
    if args.serve is not None:
        server = site.server(args.output, args.serve)
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
