"""The plain way: a FastAPI endpoint in Starlette's thread pool, one forward pass a request.

python benchmarks/peers/fastapi_server.py CHECKPOINT PORT [--threads N]
"""

import argparse
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pictures import Pictures


def main() -> None:
    """Serve GET /image?seed=."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=0, help="of a forward pass; 0 is torch's own choice")
    arguments = parser.parse_args()
    pictures = Pictures(arguments.checkpoint, arguments.threads)
    app = FastAPI()

    @app.get("/image")
    def image(seed: int) -> Response:
        (file,) = pictures.files([seed])
        return Response(file, media_type="image/png")

    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
