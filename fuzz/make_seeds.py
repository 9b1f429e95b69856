#!/usr/bin/env python3
"""Writes the seeds of all targets to ../fixtures/corpus/TARGET: small and whole, so that a fuzzer soon changes what matters.
None comes from our writers: SIFs are written from the format's description, tars and archives by Python's tarfile or from
the headers' description, squashfs by
mksquashfs 4.5. Their bytes depend on the version of that program, and the compressed ones' on their compressor's."""
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import struct
import subprocess
import tarfile
import tempfile

MARK = 0xF0000000
CORPUS = pathlib.Path(__file__).parent.parent / "fixtures/corpus"
SEED_BYTES_MAX = 16 << 10


def write(target, seeds):
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        assert len(data) < SEED_BYTES_MAX, (target, name, len(data))
        (directory / name).write_bytes(data)


def sif(objects, slots, arch=b"02\0", launch=b"#!/usr/bin/env run-singularity\n", table=128):
    """objects: (type, group, link, alignment, name, extra, bytes)"""
    data_offset = table + 585 * slots
    rows, body = b"", b""
    for number, (kind, group, link, alignment, name, extra, data) in enumerate(objects, 1):
        end = data_offset + len(body)
        start = -(-end // alignment) * alignment
        body += bytes(start - end) + data
        places = (start, len(data), start - end + len(data))
        rows += struct.pack("<iBIII7q", kind, 1, number, group | MARK, link, *places, 1, 1, 0, 0)
        rows += name.ljust(128, b"\0") + extra.ljust(384, b"\0")
    rows = rows.ljust(585 * slots, b"\0")
    header = launch.ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + arch + bytes(16)
    header += struct.pack("<8q", 1, 1, slots - len(objects), slots, table, 585 * slots, data_offset, len(body))
    return header.ljust(table, b"\0") + rows + body


def digest(data):
    return b"sha256:" + hashlib.sha256(data).hexdigest().encode()


definition = (0x4001, 1, 0, 1, b"", b"", b"bootstrap: docker\nfrom: a\n\n")
metadata = (0x4006, 1, 0, 1, b"inspect-metadata.json", b"", b'{"type":"container"}')
system = (0x4004, 1, 0, 512, b"", struct.pack("<ii", 1, 2) + b"02\0", b"hsqs" + bytes(508))
overlay = (0x4004, 1, 0, 512, b"", struct.pack("<ii", 2, 4) + b"02\0", bytes(1080) + b"\x53\xef" + bytes(454))
signature = (0x4005, 0, 1 | MARK, 1, b"", struct.pack("<i", 1) + bytes(range(1, 21)), b"-----BEGIN")
key = (0x4008, 1, 3, 1, b"", struct.pack("<ii", 2, 0x200), b"-----BEGIN")
sbom = (0x4009, 1, 3, 1, b"", struct.pack("<i", 4), b"{}")
index = b'{"schemaVersion":2,"manifests":[]}'
second = 128 + 4 * 585 + len(definition[-1])
seeds = {
    "container": sif([definition, metadata, system], 4),
    "signed-with-overlay": sif([definition, metadata, system, key, sbom, overlay, signature], 8),
    "oci": sif([(0x400B, 0, 0, 1, b"", digest(b"{}"), b"{}"), (0x400A, 0, 0, 1, b"", digest(index), index)], 3, b"00\0", b""),
    "not-a-sif": b"#!/bin/sh\n",
    "cut-short": sif([definition, metadata, system], 4)[:3000],
    "overlapping": sif([definition, metadata, system], 4).replace(struct.pack("<q", second), struct.pack("<q", second - 1)),
}
write("sif_reader", seeds)


# --- tar ---

def member(name, data=b"", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(data), 1_600_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(members, dialect=tarfile.PAX_FORMAT, **options):
    buffer = io.BytesIO()
    # tarfile pads to 20 blocks; an end marker of two blocks is enough.
    with tarfile.open(fileobj=buffer, mode="w", format=dialect, encoding="utf-8", errors="surrogateescape", **options) as out:
        for info, data in members:
            out.addfile(info, io.BytesIO(data))
        end = out.offset
    return buffer.getvalue()[:end] + bytes(1024)


def header(name, size, kind, extra=b"", mark=b"ustar  \0"):
    """A header by hand, for what tarfile reads but does not write; `extra` stands from byte 345 on."""
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0" + b" " * 8 + kind
    block = (block + bytes(100) + mark).ljust(345, b"\0") + extra
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def blocks(data):
    return data + bytes(-len(data) % 512)


def record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def with_records(records, name, data):
    payload = b"".join(record(key, value) for key, value in records)
    mark = b"ustar\00000"
    head = header(b"PaxHeaders/x", len(payload), b"x", mark=mark) + blocks(payload)
    return head + header(name, len(data), b"0", mark=mark) + blocks(data) + bytes(1024)


def octal(*numbers):
    return b"".join(b"%011o\0" % number for number in numbers)


kinds = [
    member("d/", kind=tarfile.DIRTYPE, mode=0o755),
    member("d/file", b"contents\n" * 60, mode=0o4755, uid=1000, gid=1000),
    member("d/hard", kind=tarfile.LNKTYPE, linkname="d/file"),
    member("d/soft", kind=tarfile.SYMTYPE, linkname="../d/file"),
    member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    member("disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=0),
    member("pipe", kind=tarfile.FIFOTYPE),
    member("d/.wh.gone"),
    member("d/.wh..wh..opq"),
]
long = [member("n" * 120 + "/" + "m" * 120, b"x"), member("l", kind=tarfile.SYMTYPE, linkname="t" * 200)]
pax = {"SCHILY.xattr.user.a": "b", "mtime": "-1.5", "uid": "4294967294", "path": "ünïcode", "comment": "c"}
sparse_old = bytes(41) + octal(0, 512, 4096, 10) + octal(8192, 0) + bytes(24) + b"\0" + octal(8192)
sparse_more = bytes(41) + octal(0, 1, 512, 1, 1024, 1, 1536, 1) + b"\1" + octal(4096)
write("tar_reader", {
    "ustar": tar(kinds, tarfile.USTAR_FORMAT),
    "gnu": tar(kinds, tarfile.GNU_FORMAT),
    "gnu-long-names": tar(long, tarfile.GNU_FORMAT),
    "gnu-base-256": tar([member("big", b"x", uid=1 << 31, gid=1 << 25, mtime=-1)], tarfile.GNU_FORMAT),
    "pax-long-names": tar(long),
    "pax-records": tar([member("f", b"data", pax_headers=pax)]),
    "pax-global": tar([member("f", b"data")], pax_headers={"uid": "7", "SCHILY.xattr.user.g": "h"}),
    "sparse-gnu": header(b"s", 522, b"S", sparse_old) + blocks(b"x" * 522) + bytes(1024),
    "sparse-gnu-extended": header(b"s", 5, b"S", sparse_more) + blocks(octal(2048, 1, 4096, 0)) + blocks(b"x" * 5) + bytes(1024),
    "sparse-0.0": with_records([(b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"0"),
        (b"GNU.sparse.numbytes", b"4"), (b"GNU.sparse.offset", b"1024"), (b"GNU.sparse.numbytes", b"6")], b"s", b"x" * 10),
    "sparse-0.1": with_records([(b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.name", b"real"),
        (b"GNU.sparse.map", b"0,4,1024,6")], b"GNUSparseFile.0/s", b"x" * 10),
    "sparse-1.0": with_records([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"real"),
        (b"GNU.sparse.realsize", b"4096")], b"GNUSparseFile.0/s", blocks(b"2\n0\n4\n1024\n6\n") + b"x" * 10),
    "v7": header(b"old", 3, b"\0", mark=b"") + blocks(b"old") + header(b"dir/", 0, b"\0", mark=b"") + bytes(1024),
    "cut-short": tar(kinds, tarfile.GNU_FORMAT)[:1200],
    "empty": bytes(1024),
})

# --- image archives ---

layer = tar([member("etc/", kind=tarfile.DIRTYPE), member("etc/x", b"x")], tarfile.USTAR_FORMAT)
hexes = {}


def blob(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    hexes[data] = hashlib.sha256(data).hexdigest()
    return data


def config(architecture="amd64", layers=(layer,)):
    return blob({"architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"a": "b"}, "User": "1:1", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
        "history": [{"created_by": "a"}, {"empty_layer": True}]})


def described(data, media_type, **more):
    return {"mediaType": media_type, "digest": "sha256:" + hexes[data], "size": len(data), **more}


OCI = "application/vnd.oci.image."


def manifest(config_bytes, stored=layer, suffix=""):
    blob(stored)
    return blob({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
        "config": described(config_bytes, OCI + "config.v1+json"),
        "layers": [described(stored, OCI + "layer.v1.tar" + suffix)]})


def archive(documents, blobs=(), more=()):
    named = [(name, data if isinstance(data, bytes) else json.dumps(data).encode()) for name, data in documents.items()]
    named += [("blobs/sha256/" + hexes[data], data) for data in blobs]
    return tar([member(name, data) for name, data in named] + list(more), tarfile.USTAR_FORMAT)


def index(*descriptors):
    return {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": list(descriptors)}


marker = {"oci-layout": {"imageLayoutVersion": "1.0.0"}}
packed = blob(gzip.compress(layer, mtime=0))
amd64, arm64 = config(), config("arm64")
name = {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "docker.io/library/a:1"}
one, other = manifest(amd64, packed, "+gzip"), manifest(arm64)
listed = described(one, OCI + "manifest.v1+json", annotations=name)
nested = blob(index(*[described(data, OCI + "manifest.v1+json", platform={"architecture": architecture, "os": "linux"})
    for data, architecture in [(one, "amd64"), (other, "arm64")]]))
platforms = described(nested, OCI + "index.v1+json", annotations=name)
docker = archive({"manifest.json": [{"Config": "c.json", "RepoTags": ["a:1", "b/c:2"], "Layers": ["0/layer.tar"]}],
    "c.json": amd64, "0/layer.tar": layer})
twice = config(layers=[layer, layer])
linked = archive({"manifest.json": [{"Config": hexes[twice] + ".json", "RepoTags": None, "Layers": ["l", "dir/m"]}],
    hexes[twice] + ".json": twice, "x/layer.tar": layer},
    more=[member("l", kind=tarfile.SYMTYPE, linkname="./x/../m"), member("m", kind=tarfile.LNKTYPE, linkname="x/layer.tar"),
        member("dir", kind=tarfile.SYMTYPE, linkname=".")])
two = [{"Config": f"{n}.json", "RepoTags": [f"a:{n}"], "Layers": ["layer.tar"]} for n in (1, 2, 3)]
v1 = {"repositories": {"a": {"1": "aa"}}, "aa/json": {"id": "aa", "parent": "bb", "os": "linux", "config": {"Cmd": ["sh"]}},
    "aa/layer.tar": layer, "aa/VERSION": b"1.0", "bb/json": {"id": "bb"}, "bb/layer.tar": layer}
bare = {name: data for name, data in v1.items() if name != "repositories"}
write("archive_reader", {
    "docker": docker,
    "docker-gzip": gzip.compress(docker, mtime=0),
    "docker-bzip2": bz2.compress(docker),
    "docker-xz": lzma.compress(docker),
    "docker-zstd": subprocess.run(["zstd", "-q"], input=docker, check=True, stdout=subprocess.PIPE).stdout,
    "docker-links": linked,
    "docker-several": archive({"manifest.json": two, "1.json": amd64, "2.json": arm64, "layer.tar": layer}),
    "docker-25": archive({**marker, "index.json": index(listed), "manifest.json": [{"Config": "blobs/sha256/" + hexes[amd64],
        "RepoTags": ["a:1"], "Layers": ["blobs/sha256/" + hexes[packed]]}]}, [amd64, packed, one]),
    "docker-v1": archive(v1),
    "docker-v1-untagged": archive(bare),
    "docker-v1-circle": archive({**v1, "bb/json": {"parent": "aa"}}),
    "oci": archive({**marker, "index.json": index(listed)}, [amd64, packed, one]),
    "oci-platforms": archive({**marker, "index.json": index(platforms)}, [nested, one, other, amd64, arm64, packed, layer]),
    "oci-absent": archive({**marker, "index.json": index(platforms)}, [nested, one, amd64, packed]),
    "config-is-no-document": gzip.compress(archive({"manifest.json": [{"Config": "c", "Layers": []}], "c": b"text"}), mtime=0),
    "root-file-system": layer,
    "cut-short": docker[:1800],
})

# --- documents: index, manifest and config, whose digests are filled in (fuzz_targets/documents.rs) ---


def documents(index, manifest, config):
    return b"\0".join(json.dumps(document, separators=(",", ":")).encode() for document in (index, manifest, config))


def referring(letter, media_type, **more):
    # The size is a number, so its place is filled outside of quotes.
    return {"mediaType": media_type, "digest": "%" + letter, "size": "%" + letter.lower(), **more}


def sized(documents):
    for letter in b"mcl":
        documents = documents.replace(b'"%%%c"' % letter, b"%%%c" % letter)
    return documents


full = {"architecture": "amd64", "variant": "v2", "os": "linux", "os.version": "1", "os.features": [], "author": "a",
    "created": "2020-01-01T00:00:00.5Z",
    "config": {"Env": ["PATH=/bin", "A=", "B"], "Entrypoint": ["sh", "-c"], "Cmd": ["a b"], "Labels": {"a": "b", "c": None}, "User": "u:g",
        "WorkingDir": "/w/x", "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM", "ArgsEscaped": True,
        "Healthcheck": {"Test": ["NONE"], "Interval": 1}, "Shell": ["/bin/sh", "-c"], "OnBuild": ["RUN x"]},
    "rootfs": {"type": "layers", "diff_ids": ["%L"]},
    "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "a", "comment": "c"}, {"empty_layer": True}]}
bare_config = {"os": "linux", "rootfs": {"diff_ids": ["%L"]}}
oci_manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": referring("C", OCI + "config.v1+json"),
    "layers": [referring("L", OCI + "layer.v1.tar")], "annotations": {"a": "b"}}
DOCKER = "application/vnd.docker."
docker_manifest = {"schemaVersion": 2, "mediaType": DOCKER + "distribution.manifest.v2+json",
    "config": referring("C", DOCKER + "container.image.v1+json"), "layers": [referring("L", DOCKER + "image.rootfs.diff.tar", urls=["http://a/b"])]}
artifact = {**oci_manifest, "artifactType": "a/b", "config": referring("C", "application/vnd.oci.empty.v1+json"),
    "subject": referring("M", OCI + "manifest.v1+json")}
entry = referring("M", OCI + "manifest.v1+json", annotations=name, platform={"architecture": "amd64", "os": "linux", "variant": "v1"})
sif_layers = {**artifact, "layers": [referring("L", "application/vnd.sylabs.sif.layer.v1.sif")]}
write("documents", {case: sized(documents(*parts)) for case, parts in {
    "oci": (index(entry), oci_manifest, full),
    "oci-bare": ({"manifests": [{"digest": "%M"}]}, {"config": {"digest": "%C"}, "layers": [{"digest": "%L"}]}, bare_config),
    "oci-nulls": ({"manifests": [{**entry, "platform": None, "annotations": {"a": None}}]}, {**oci_manifest, "annotations": None},
        {**bare_config, "config": {"Env": None, "Labels": None, "Cmd": None}, "history": None}),
    "oci-other-case": ({"Manifests": [entry]}, oci_manifest, {"OS": "linux", "Config": {"env": ["A=b"], "cmd": ["c"]}, "RootFS": {"Diff_IDs": ["%L"]}}),
    "oci-two": (index(entry, {**entry, "platform": {"architecture": "arm64", "os": "linux"}}, {**entry, "artifactType": "a/b"}), oci_manifest, full),
    "oci-artifact": (index(entry), artifact, full),
    "oci-sif": (index(entry), sif_layers, {}),
    "oci-docker": ({"schemaVersion": 2, "mediaType": DOCKER + "distribution.manifest.list.v2+json", "manifests": [{**entry, "mediaType": DOCKER + "distribution.manifest.v2+json"}]},
        docker_manifest, full),
    "oci-nested": (index(referring("M", OCI + "index.v1+json")), index(referring("C", OCI + "manifest.v1+json")), oci_manifest),
    "docker": ([{"Config": "c.json", "RepoTags": ["a:1", "b/c:2"], "Layers": ["l.tar"]}], {}, full),
    "docker-twice": ([{"Config": "c.json", "RepoTags": None, "Layers": ["l.tar", "l.tar"], "LayerSources": {"%L": {"size": 1}}}], {},
        {**full, "rootfs": {"type": "layers", "diff_ids": ["%L", "%L"]}}),
    "docker-other-case": ([{"config": "c.json", "repotags": ["a:1"], "layers": ["l.tar"]}], {}, bare_config),
}.items()})

# --- a config and layers that become an archive (fuzz_targets/archive_to_sif.rs) ---


def parts(config, *layers):
    return tar([member("config", json.dumps(config).encode())] + [member(str(number), layer) for number, layer in enumerate(layers)],
        tarfile.USTAR_FORMAT)


plain = {"os": "linux", "config": {"Cmd": ["sh"], "WorkingDir": "/w", "Env": ["A=b"]}, "history": [{"created_by": "a"}]}
below = tar(kinds, tarfile.GNU_FORMAT)
above = tar([member("d/.wh.file"), member("d/soft", b"no link", mode=0o600), member("e/.wh..wh..opq"), member("null/x", b"y"),
    member("d/up", kind=tarfile.SYMTYPE, linkname="../../etc"), member("d/up/y", b"z")], tarfile.PAX_FORMAT)
write("archive_to_sif", {
    "one-layer": parts(plain, below),
    "two-layers": parts(plain, below, above),
    "long-names": parts(plain, tar(long), tar(long, tarfile.GNU_FORMAT)),
    "attributes": parts(plain, tar([member("f", b"data", pax_headers=pax)])),
    "sparse": parts(plain, header(b"s", 522, b"S", sparse_old) + blocks(b"x" * 522) + bytes(1024)),
    "blocks": parts(plain, tar([member("b", bytes(range(256)) * 10), member("c", bytes(3000)), member("d", bytes(range(256)) * 10)])),
    "shell": parts(plain, tar([member("bin/sh", b"#!/x\n", mode=0o755), member("scif/apps/a/scif/runscript", b"x"), member(".singularity.d/env/90-environment.sh", b"export A=b\n"),
        member("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), member("bin/l", kind=tarfile.SYMTYPE, linkname="/bin/sh")])),
    "no-layers": parts(plain),
    "empty-layers": parts({}, bytes(1024), bytes(512), b""),
})

# --- squashfs ---


def squashfs(fill, *options):
    with tempfile.TemporaryDirectory() as directory:
        tree, image = pathlib.Path(directory, "tree"), pathlib.Path(directory, "image")
        tree.mkdir()
        fill(tree)
        fixed = ["-mkfs-time", "1600000000", "-all-time", "1600000000", "-all-root", "-nopad", "-noappend", "-quiet", "-no-progress"]
        subprocess.run(["mksquashfs", tree, image, *fixed, *options], check=True, stdout=subprocess.DEVNULL)
        return image.read_bytes()


def small(tree):
    (tree / "d").mkdir()
    (tree / "d/file").write_bytes(b"contents\n" * 20)
    (tree / "d/blocks").write_bytes(bytes(range(256)) * 20)
    os.link(tree / "d/file", tree / "hard")
    os.symlink("d/file", tree / "soft")
    (tree / "empty").touch()


def holes(tree):
    with open(tree / "hole", "wb") as file:
        file.seek(40_000)
        file.write(b"end")


def many(tree):
    (tree / "d").mkdir()
    for number in range(300):
        (tree / f"d/{number}-with-a-name-long-enough-for-an-index").touch()


def attributes(tree):
    small(tree)
    os.setxattr(tree / "d/file", "user.a", b"b")
    os.setxattr(tree / "d", "user.long", b"c" * 100)
    os.setxattr(tree / "d/blocks", "user.long", b"c" * 100)


devices = ["-p", "null c 666 0 0 1 3", "-p", "disk b 660 0 0 8 0", "-p", "pipe i 644 0 0 f", "-p", "socket i 644 0 0 s"]
# Compressed blocks carry checksums, which a fuzzer does not get right: most seeds have none.
stored = ["-noI", "-noD", "-noF", "-noX", "-b", "4096"]
write("squashfs_reader", {
    "gzip": squashfs(small, "-comp", "gzip"),
    "zstd": squashfs(small, "-comp", "zstd"),
    **{name: squashfs(small, "-comp", name) for name in ["lz4", "lzma", "lzo", "xz"]},
    "stored": squashfs(small, *stored),
    "stored-devices": squashfs(small, *stored, *devices),
    "stored-not-exportable": squashfs(small, *stored, "-no-exports", "-no-fragments", "-no-xattrs"),
    "stored-holes": squashfs(holes, *stored),
    "stored-xattrs": squashfs(attributes, *stored),
    "gzip-xattrs": squashfs(attributes, "-comp", "gzip"),
    "gzip-data-only": squashfs(small, "-comp", "gzip", "-noI", "-b", "4096"),
    "gzip-index": squashfs(many, "-comp", "gzip"),
    "empty": squashfs(lambda tree: None, *stored),
    "cut-short": squashfs(small, *stored)[:500],
})


# --- file systems that stand for an image (fuzz_targets/volume_reader.rs) ---
def root(tree):
    small(tree)
    os.link(tree / "d/file", tree / "d/.wh.hard")
    (tree / "etc").mkdir()
    (tree / "etc/hosts").touch()
    os.setxattr(tree / "d/blocks", "user.rootlesscontainers", b"\x08\xe8\x07\x10\x05")


def prepared(tree):
    root(tree)
    files = {
        "runscript": b"#!/bin/sh\nOCI_ENTRYPOINT='\"/bin/sh\" \"-c\"'\nOCI_CMD='\"echo it'\"'\"'s\"'\nexec \"$@\"\n",
        "startscript": b"#!/bin/sh\n",
        "env/10-docker2singularity.sh": b"#!/bin/sh\nexport PATH=\"/bin\"\nexport A=\"${A:-\"x \\\\$y\"}\"\n",
        "env/90-environment.sh": b"#!/bin/sh\nexport B=\"$A/c\" C='d'\n",
        "labels.json": b'{"k": "v", "org.label-schema.build-date": "x"}',
        "sif-convert.made": b"proc\0sys\0etc/hosts\0",
        "replaced/etc/hosts": b"127.0.0.1 localhost\n",
    }
    for name, data in files.items():
        path = tree / ".singularity.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in ["proc", "sys"]:
        (tree / name).mkdir()
    os.symlink(".singularity.d/runscript", tree / "singularity")


def container(image, config=None):
    objects = [(0x4006, 1, 0, 1, b"oci-config.json", b"", config)] if config else []
    partition = struct.pack("<ii", 1, 2) + b"02\0"
    return sif(objects + [(0x4004, 1, 0, 4096, b"rootfs", partition, image)], 4)


runs = json.dumps({"Env": ["A=b"], "Entrypoint": ["/x"], "User": "1", "Labels": {"a": "b"}, "Volumes": {"/v": {}}}).encode()
write("volume_reader", {
    "squashfs": squashfs(root, *stored),
    "devices": squashfs(root, *stored, *devices),
    "holes": squashfs(holes, *stored),
    "zstd": squashfs(prepared, "-comp", "zstd"),
    "prepared": squashfs(prepared, *stored),
    "sif": container(squashfs(prepared, *stored)),
    "sif-config": container(squashfs(prepared, *stored), runs),
    "sif-plain": container(squashfs(small, *stored), runs),
})
