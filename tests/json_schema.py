"""A value held against as much of JSON Schema as the OpenAPI document uses."""

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def has_type(value, kind):
    """Whether a value is of one of JSON Schema's types; a boolean is no number."""
    is_bool_as_number = isinstance(value, bool) and kind in {"integer", "number"}
    return isinstance(value, _TYPES[kind]) and not is_bool_as_number


def list_violations(value, schema, schemas, at="$"):
    """What is wrong with a value, in sentences; `schemas` are the named ones."""
    if "$ref" in schema:
        return list_violations(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, at)
    if "anyOf" in schema:
        tries = [list_violations(value, one, schemas, at) for one in schema["anyOf"]]
        return [] if not all(tries) else tries[0]
    kind = schema.get("type")
    if kind is not None and not has_type(value, kind):
        return [f"{at}: {value!r} is no {kind}"]
    if kind == "array":
        items = schema.get("items", {})
        return [
            wrong
            for number, item in enumerate(value)
            for wrong in list_violations(item, items, schemas, f"{at}[{number}]")
        ]
    if kind != "object":
        return []
    properties = schema.get("properties", {})
    found = [f"{at}: no {name}" for name in schema.get("required", ()) if name not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{at}: {name} is not described" for name in value.keys() - properties.keys()]
    for name in value.keys() & properties.keys():
        found += list_violations(value[name], properties[name], schemas, f"{at}.{name}")
    return found
