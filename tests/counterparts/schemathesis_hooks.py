"""Lets schemathesis name what exists: names and ids that it makes up itself would only ever find nothing."""

import json
import os
import random

import schemathesis

# Lists of names and ids, by the beginning of the path whose parameter they are for.
KNOWN = json.loads(os.environ["KNOWN_PATH_PARAMETERS"])


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    path = context.operation.path
    known = next((known for begin, known in KNOWN.items() if path.startswith(begin + "/{")), None)
    if known and path_parameters and random.random() < 0.7:
        return {name: random.choice(known) for name in path_parameters}
    return path_parameters


@schemathesis.hook
def map_query(context, query):
    # Long polls only take time from the other cases; their bounds are tested all the same.
    if query and isinstance(query.get("wait"), int) and query["wait"] > 1:
        return {**query, "wait": query["wait"] % 2 if query["wait"] <= 600 else query["wait"]}
    return query
