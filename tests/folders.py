"""Pictures and folders of pictures on disk, for tests that read them."""

from PIL import Image


def write_picture(path, content="RGB", value=90):
    """A picture (its mode, or an Image) or bytes at `path`, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        image = Image.new(content, (6, 5), value) if isinstance(content, str) else content
        image.save(path, "PNG" if path.suffix in ("", ".txt") else None)
    return path


def write_pets(root):
    """Two classes of six pictures each."""
    for name, value in (("ant", 30), ("bee", 200)):
        for i in range(6):
            write_picture(root / name / f"{i}.png", "L", value + i)
    return root
