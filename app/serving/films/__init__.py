"""Films: frames into mp4, WebM, animated WebP, GIF and zip with their recipe inside, and anyone's out of them."""
