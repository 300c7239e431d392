#!/usr/bin/env python3
"""Qdrant's HTTP interface over Qdrant's engine: `bridge.py FOLDER` prints its address and serves until stdin ends.

Every body is checked by the models of the package qdrant-client, which are generated from Qdrant's OpenAPI file and forbid
unknown keys. The engine of the package qdrant-edge-py stores points and computes scores. The folder keeps the collections, so
that a bridge that is started again has them. It serves what `splade` calls, and refuses everything else.
"""

import enum
import http.server
import json
import pathlib
import shutil
import sys
import threading
import typing
import urllib.parse
import uuid

import pydantic
import qdrant_client.http.models as rest
import qdrant_edge as edge

MODIFIERS = {None: None, rest.Modifier.NONE: None, rest.Modifier.IDF: edge.Modifier.Idf}


class Refused(Exception):
    """A request that Qdrant would refuse: status and message."""


def checked(model, body):
    try:
        return pydantic.TypeAdapter(model).validate_python(body)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused(400, f"Format error in JSON body: {place}: {first['msg']}") from None


class Collection:
    def __init__(self, folder, created=None):
        self.folder = folder
        state = folder / "state.json"
        if created is None:
            self.state = json.loads(state.read_text())
            self.shard = edge.EdgeShard.load(str(folder / "shard"))
        else:
            sparse = created.sparse_vectors or {}
            self.state = {"metadata": created.metadata or {}, "schema": {}, "vectors": list(sparse)}
            (folder / "shard").mkdir(parents=True)
            vectors = {name: edge.EdgeSparseVectorParams(modifier=MODIFIERS[of.modifier]) for name, of in sparse.items()}
            self.shard = edge.EdgeShard.create(str(folder / "shard"), edge.EdgeConfig(sparse_vectors=vectors))
            self.save()

    def save(self):
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def close(self):
        self.shard.flush()
        self.shard.close()

    def index(self, body):
        body = checked(rest.CreateFieldIndex, body)
        if not isinstance(body.field_schema, enum.Enum):
            raise Refused(400, "the bridge has no parameters of field indexes")
        kind = getattr(edge.PayloadSchemaType, body.field_schema.value.title())
        self.shard.update(edge.UpdateOperation.create_field_index(body.field_name, kind))
        self.state["schema"][body.field_name] = body.field_schema.value
        self.save()

    def upsert(self, body):
        points = checked(rest.PointsList, body).points
        made = []
        for point in points:
            vectors = {name: edge.SparseVector(sparse.indices, sparse.values) for name, sparse in point.vector.items()}
            unknown = set(vectors) - set(self.state["vectors"])
            if unknown:
                raise Refused(400, f"Wrong input: Not existing vector name error: {unknown.pop()}")
            made.append(edge.Point(uuid.UUID(str(point.id)), vectors, point.payload or {}))
        self.shard.update(edge.UpdateOperation.upsert_points(made))

    def retrieve(self, body):
        body = checked(rest.PointRequest, body)
        ids = [uuid.UUID(str(point)) for point in body.ids]
        found = self.shard.retrieve(ids, body.with_payload, False)
        return [{"id": str(point.id), "payload": point.payload} for point in found]

    def scroll(self, body):
        body = checked(rest.ScrollRequest, body)
        offset = body.offset and uuid.UUID(str(body.offset))
        points, after = self.shard.scroll(edge.ScrollRequest(offset=offset, limit=body.limit, with_payload=body.with_payload))
        page = [{"id": str(point.id), "payload": point.payload} for point in points]
        return {"points": page, "next_page_offset": None if after is None else str(after)}

    def delete(self, body):
        points = checked(rest.PointIdsList, body).points
        self.shard.update(edge.UpdateOperation.delete_points([uuid.UUID(str(point)) for point in points]))

    def query(self, body):
        body = checked(rest.QueryRequest, body)
        prefetches = [
            edge.Prefetch(limit=part.limit, query=scoring(part.query, part.using), filter=conditions(part.filter, self.shard))
            for part in body.prefetch or []
        ]
        request = edge.QueryRequest(
            limit=body.limit,
            query=scoring(body.query, body.using),
            prefetches=prefetches or None,
            with_payload=body.with_payload,
            filter=conditions(body.filter, self.shard),
        )
        found = self.shard.query(request)
        points = [
            {"id": str(point.id), "version": point.version, "score": point.score, "payload": point.payload} for point in found
        ]
        checked(rest.QueryResponse, {"points": points})
        return {"points": points}


def scoring(query, using):
    if isinstance(query, rest.SparseVector):
        return edge.Query.Nearest(edge.SparseVector(query.indices, query.values), using=using)
    if isinstance(query, rest.RrfQuery):
        return edge.Fusion.Rrf(query.rrf.k or 2, query.rrf.weights)
    raise Refused(400, f"the bridge has no query of type {type(query).__name__}")


def conditions(found, shard):
    if found is None:
        return None
    parts = {name: getattr(found, name) for name in ["must", "should", "must_not"]}
    parts = {name: listed(value) for name, value in parts.items() if value is not None}
    return edge.Filter(**{name: [condition(part, shard) for part in those] for name, those in parts.items()})


def listed(value):
    return value if isinstance(value, list) else [value]


def condition(part, shard):
    if isinstance(part, rest.Filter):
        return conditions(part, shard)
    if isinstance(part, rest.HasIdCondition):
        return edge.HasIdCondition({uuid.UUID(str(point)) for point in part.has_id})
    if isinstance(part, rest.IsEmptyCondition):
        return edge.IsEmptyCondition(part.is_empty.key)
    if isinstance(part, rest.FieldCondition) and part.match is not None:
        if isinstance(part.match.value, bool):
            return with_boolean(part.key, part.match.value, shard)
        return edge.FieldCondition(part.key, match=edge.MatchValue(part.match.value))
    if isinstance(part, rest.FieldCondition) and part.range is not None:
        bounds = {name: getattr(part.range, name) for name in ["gte", "gt", "lte", "lt"]}
        if isinstance(part.range, rest.DatetimeRange):
            texts = {name: value and value.isoformat() for name, value in bounds.items()}
            return edge.FieldCondition(part.key, range=edge.RangeDateTime(**texts))
        return edge.FieldCondition(part.key, range=edge.RangeFloat(**bounds))
    raise Refused(400, f"the bridge has no condition of type {type(part).__name__}")


def with_boolean(key, value, shard):
    """Points with this boolean. The wheel passes True to the engine as 1, which is no boolean, so they are looked up here."""
    found, offset = set(), None
    while True:
        points, offset = shard.scroll(edge.ScrollRequest(offset=offset, limit=1000, with_payload=[key.split(".")[0]]))
        found |= {point.id for point in points if value_of(point.payload, key.split(".")) is value}
        if offset is None:
            return edge.HasIdCondition(found)


def value_of(payload, steps):
    for step in steps:
        payload = (payload or {}).get(step)
    return payload


class Collections:
    def __init__(self, folder):
        self.folder = folder
        self.open = {path.name: Collection(path) for path in folder.iterdir() if path.is_dir()}

    def create(self, name, body):
        body = checked(rest.CreateCollection, body)
        if name in self.open:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        self.open[name] = Collection(self.folder / name, body)

    def remove(self, name):
        collection = self.open.pop(name, None)
        if collection is not None:
            collection.close()
            shutil.rmtree(collection.folder)

    def close(self):
        for collection in self.open.values():
            collection.close()

    def answer(self, method, path, body):
        parts = urllib.parse.urlsplit(path)
        if parts.query not in ["", "wait=true"]:
            raise Refused(400, f"the bridge has no parameter {parts.query}")
        steps = parts.path.split("/")
        if steps[:2] != ["", "collections"] or len(steps) < 3:
            raise Refused(404, "the bridge has collections only")
        name, verb = urllib.parse.unquote(steps[2]), "/".join(steps[3:])
        if (method, verb) == ("PUT", ""):
            return self.create(name, body) or True
        if (method, verb) == ("DELETE", ""):
            return self.remove(name) or True
        if name not in self.open:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        collection = self.open[name]
        done = {"operation_id": 0, "status": "completed"}
        if (method, verb) == ("GET", ""):
            config = {"params": {}, "metadata": collection.state["metadata"]}
            return {"status": "green", "config": config, "payload_schema": collection.state["schema"]}
        if (method, verb) == ("PATCH", ""):
            collection.state["metadata"].update(checked(rest.UpdateCollection, body).metadata or {})
            collection.save()
            return True
        if (method, verb) == ("POST", "points/count"):
            checked(rest.CountRequest, body)
            return {"count": collection.shard.count(edge.CountRequest(exact=True))}
        calls = {
            ("PUT", "index"): collection.index,
            ("PUT", "points"): collection.upsert,
            ("POST", "points"): collection.retrieve,
            ("POST", "points/scroll"): collection.scroll,
            ("POST", "points/delete"): collection.delete,
            ("POST", "points/query"): collection.query,
        }
        if (method, verb) not in calls:
            raise Refused(404, f"the bridge has no {method} {verb}")
        result = calls[method, verb](body)
        return done if result is None else result


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # head and body are two packets, of which the second would wait for the acknowledgement of the first
    disable_nagle_algorithm = True
    collections: typing.ClassVar[Collections]
    lock: typing.ClassVar[threading.Lock] = threading.Lock()

    def handle_any(self):
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            body = json.loads(text) if text else None
            with self.lock:
                result = self.collections.answer(self.command, self.path, body)
            status, answer = 200, {"result": result, "status": "ok", "time": 0.0}
        except Refused as refused:
            status, answer = refused.args[0], {"status": {"error": refused.args[1]}, "time": 0.0}
        except Exception as error:  # the engine refuses a request by an exception
            status, answer = 400, {"status": {"error": f"{type(error).__name__}: {error}"}, "time": 0.0}
        sent = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    Handler.collections = Collections(folder)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    server.shutdown()
    with Handler.lock:
        Handler.collections.close()


main()
