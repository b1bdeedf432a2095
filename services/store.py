"""The store, by its API alone, so that any S3 will do: make its buckets, write all it holds as a tar, read one back.

python store.py buckets | dump > FILE | load < FILE; where and with which keys, AWS's usual variables say.
"""

import sys
import tarfile
from types import SimpleNamespace

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKETS = ("genai-dvc", "genai-mlflow")  # of DVC, of MLflow's artifacts


def buckets(s3) -> None:
    """Make the buckets that are missing."""
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in there:
            s3.create_bucket(Bucket=bucket)


def dump(s3) -> None:
    """Write every object to standard output, named BUCKET/KEY."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for bucket in BUCKETS:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for found in page.get("Contents", ()):
                    item = s3.get_object(Bucket=bucket, Key=found["Key"])
                    entry = tarfile.TarInfo(f"{bucket}/{found['Key']}")
                    entry.size, entry.mtime = item["ContentLength"], int(item["LastModified"].timestamp())
                    archive.addfile(entry, item["Body"])


def load(s3) -> None:
    """Write every object of standard input into the store."""
    buckets(s3)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for entry in archive:
            bucket, key = entry.name.split("/", 1)
            # in parts as they are read; boto3 asks what tarfile's stream does not know, whether it can go back
            s3.upload_fileobj(SimpleNamespace(read=archive.extractfile(entry).read), bucket, key)


if __name__ == "__main__":
    # a bucket in the path: the store has one name, not one for each bucket
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    try:
        {"buckets": buckets, "dump": dump, "load": load}[sys.argv[1]](client)
    except (BotoCoreError, ClientError, tarfile.TarError) as error:
        sys.exit(f"store: {error}")
