#!/usr/bin/python3
"""Whether answers of the admin API are as its OpenAPI document says.

answers_fit.py DOCUMENT (METHOD TEMPLATE STATUS MEDIA FILE)...
"""

import json
import sys

import jsonschema


def main():
    document = json.load(open(sys.argv[1], encoding="utf-8"))
    described = {
        (method, path) for path, methods in document["paths"].items() for method in methods
    }
    arguments = sys.argv[2:]
    for at in range(0, len(arguments), 5):
        method, path, status, media, file = arguments[at : at + 5]
        operation = document["paths"][path][method]
        described.discard((method, path))
        answer = operation["responses"].get(status) or operation["responses"]["default"]
        if media not in answer["content"]:
            sys.exit(f"{method} {path}: {media} is not among {list(answer['content'])}")
        if not media.endswith("json"):
            continue
        schema = answer["content"][media]["schema"]
        # where references lead to
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        found = list(jsonschema.Draft202012Validator(whole).iter_errors(json.load(open(file, encoding="utf-8"))))
        if found:
            sys.exit(f"{method} {path} {status}: {found[0].json_path}: {found[0].message}")
    print(*sorted(f"{method} {path}" for method, path in described), sep="\n")


main()
