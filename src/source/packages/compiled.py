# Where SOURCE_DATE_EPOCH is set, Python compiles to files that name the hash of their source (PEP 552), and whoever imports one reads
# all of that source to compare it. Elsewhere they name its time and size, and from here on so do those below a folder (the first
# word): the time that it has in the image, which is not after the epoch (the second).
import importlib.util, os, struct, sys
CHECKED_HASH = struct.pack("<I", 3)
for folder, _, names in os.walk(sys.argv[1]):
    if os.path.basename(folder) != "__pycache__":
        continue
    for path in (os.path.join(folder, name) for name in names if name.endswith(".pyc")):
        try:
            source = importlib.util.source_from_cache(path)
            with open(path, "r+b", buffering=0) as compiled, open(source, "rb") as text:
                head = compiled.read(16)
                if head[4:8] != CHECKED_HASH or head[8:] != importlib.util.source_hash(text.read()):
                    continue
                meta = os.fstat(text.fileno())
                time = min(int(meta.st_mtime), int(sys.argv[2]))
                compiled.seek(4)
                compiled.write(struct.pack("<III", 0, time & 0xFFFFFFFF, meta.st_size & 0xFFFFFFFF))
        except (FileNotFoundError, ValueError):
            pass  # It has no source to compare it with.
