"""Serves Milvus's REST interface over Milvus Lite, which has none: `bridge.py FOLDER` prints its port.

Requests are those of `internal/distributed/proxy/httpserver/request_v2.go` of Milvus. An unknown path or key is refused, so that a
request that Milvus itself would not take, or would ignore in part, fails here. Conditions, limits of vectors and scores are
those of Milvus Lite. It ends at the end of stdin.
"""

import http.server
import json
import os
import sys
import threading

from pymilvus import DataType, MilvusClient, MilvusException

TYPES = {"VarChar": DataType.VARCHAR, "SparseFloatVector": DataType.SPARSE_FLOAT_VECTOR, "JSON": DataType.JSON}
# keys of each request, without those that no request of the program has
KEYS = {
    "collections/describe": {"collectionName"},
    "collections/create": {"collectionName", "schema", "indexParams"},
    "collections/alter_properties": {"collectionName", "properties"},
    "collections/drop": {"collectionName"},
    "entities/upsert": {"collectionName", "data"},
    "entities/delete": {"collectionName", "filter"},
    "entities/query": {"collectionName", "filter", "outputFields", "limit", "consistencyLevel"},
    "entities/search": {"collectionName", "data", "annsField", "filter", "limit", "outputFields", "searchParams",
                        "consistencyLevel"},
}
# codes of Milvus: no such collection, an invalid parameter
NO_COLLECTION, INVALID = 100, 1100


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def expect(condition, message):
    if not condition:
        raise Refused(INVALID, message)


def sparse(weights):
    expect(isinstance(weights, dict), "a sparse vector is an object")
    return {int(dim): float(weight) for dim, weight in weights.items()}


class Bridge:
    def __init__(self, folder):
        self.client = MilvusClient(os.path.join(folder, "milvus.db"))
        self.lock = threading.Lock()

    def answer(self, path, body):
        expect(path in KEYS, f"no such path: {path}")
        unknown = set(body) - KEYS[path]
        expect(not unknown, f"unknown keys {sorted(unknown)}")
        name = body.get("collectionName")
        expect(isinstance(name, str) and name, "collectionName is required")
        with self.lock:
            if path != "collections/create" and not self.client.has_collection(name):
                raise Refused(NO_COLLECTION, f"can't find collection[collection={name}]")
            return getattr(self, path.replace("/", "_"))(name, body)

    def collections_describe(self, name, body):
        found = self.client.describe_collection(name)
        properties = [{"key": key, "value": value} for key, value in found["properties"].items()]
        names = {kind: name for name, kind in TYPES.items()}
        fields = [{"name": field["name"], "type": names[field["type"]]} for field in found["fields"]]
        return {"collectionName": name, "fields": fields, "properties": properties, "load": "LoadStateLoaded"}

    def collections_create(self, name, body):
        schema = body["schema"]
        made = self.client.create_schema(auto_id=schema["autoID"], enable_dynamic_field=schema["enableDynamicField"])
        for field in schema["fields"]:
            expect("elementTypeParams" in field, "elementTypeParams is required")
            made.add_field(field["fieldName"], TYPES[field["dataType"]], is_primary=field.get("isPrimary", False),
                           **field["elementTypeParams"])
        index = self.client.prepare_index_params()
        for parameters in body["indexParams"]:
            rest = dict(parameters["params"])
            index.add_index(parameters["fieldName"], index_name=parameters["indexName"], metric_type=parameters["metricType"],
                            index_type=rest.pop("index_type"), params=rest)
        self.client.create_collection(name, schema=made, index_params=index)
        return {}

    def collections_alter_properties(self, name, body):
        self.client.alter_collection_properties(name, body["properties"])
        return {}

    def collections_drop(self, name, body):
        self.client.drop_collection(name)
        return {}

    def entities_upsert(self, name, body):
        expect(body["data"], "data is required")
        rows = [{**row, "splade": sparse(row["splade"])} for row in body["data"]]
        return {"upsertCount": self.client.upsert(name, rows)["upsert_count"]}

    def entities_delete(self, name, body):
        self.client.delete(name, filter=body["filter"])
        return {}

    def entities_query(self, name, body):
        counts = body["outputFields"] == ["count(*)"]
        limit = {} if counts else {"limit": body["limit"]}
        rows = self.client.query(name, filter=body["filter"], output_fields=body["outputFields"], **limit)
        return [printed(row) for row in rows]

    def entities_search(self, name, body):
        expect(body["searchParams"]["metricType"] == "IP", "metricType is IP")
        found = self.client.search(name, data=[sparse(vector) for vector in body["data"]], anns_field=body["annsField"],
                                   filter=body.get("filter", ""), limit=body["limit"], output_fields=body["outputFields"],
                                   search_params={"metric_type": "IP", "params": body["searchParams"]["params"]})
        return [{"distance": hit["distance"], **printed(hit["entity"])} for hits in found for hit in hits]


def printed(row):
    """A row as Milvus prints it: a JSON field is a text."""
    return {key: json.dumps(value) if isinstance(value, dict) else value for key, value in dict(row).items()}


def handler(bridge):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # head and body are two packets, of which the second would wait for the acknowledgement of the first
        disable_nagle_algorithm = True

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            try:
                expect(self.path.startswith("/v2/vectordb/"), f"no such path: {self.path}")
                answer = {"code": 0, "data": bridge.answer(self.path.removeprefix("/v2/vectordb/"), json.loads(content))}
            except Refused as why:
                answer = {"code": why.code, "message": str(why)}
            except (MilvusException, KeyError, TypeError, ValueError) as why:
                answer = {"code": INVALID, "message": str(why)}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(Bridge(sys.argv[1])))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
