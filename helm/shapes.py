"""The shapes that values.yaml's `@schema` lines refer to, as definitions of values.schema.json.

Kubernetes' own shapes are closed at their first level: what stands deeper is checked by its API.
gateway.yaml's and meter.yaml's come from the code that reads them.
"""

# ruff: noqa: INP001 - a script's helper

from typing import Any

from gateway import config, meter_config

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_ON: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_LIST: Schema = {"type": "array"}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_QUANTITY: Schema = {
    "type": ["string", "number"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
}
_STRINGS: Schema = {"type": "object", "additionalProperties": _TEXT}
_DURATION: Schema = {**_TEXT, "pattern": "^[0-9]+(ms|s|m|h|d|w)$"}
_URL = r"https?://[^\s]+"


def _closed(required: str = "", /, **properties: Schema) -> Schema:
    """An object that has these keys and no others."""
    shape = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**shape, "required": required.split()} if required else shape


def _maybe(kind: str) -> Schema:
    """A value that null leaves to the platform."""
    return {"type": [kind, "null"]}


_SECRET_KEY = _closed(
    "name key", name={**_TEXT, "minLength": 1}, key={**_TEXT, "minLength": 1}, optional=_ON
)
_AMOUNTS: Schema = {"type": "object", "additionalProperties": _QUANTITY}
_SECURITY = {
    "runAsNonRoot": _maybe("boolean"),
    "runAsUser": _maybe("integer"),
    "runAsGroup": _maybe("integer"),
    "seLinuxOptions": _maybe("object"),
    "seccompProfile": _maybe("object"),
    "appArmorProfile": _maybe("object"),
    "windowsOptions": _maybe("object"),
}

DEFINITIONS: dict[str, Schema] = {
    "strings": _STRINGS,
    "digest": {**_TEXT, "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "port": _PORT,
    "quantity": _QUANTITY,
    "duration": _DURATION,
    "urlOrEmpty": {**_TEXT, "pattern": f"^({_URL})?$"},
    "alert": _closed(
        **{"for": _DURATION},
        enabled=_ON,
        threshold={"type": "number", "minimum": 0},
        severity={**_TEXT, "minLength": 1},
        labels=_STRINGS,
    ),
    "nameOnly": _closed("name", name=_TEXT),
    "resources": _closed(requests=_AMOUNTS, limits=_AMOUNTS, claims=_LIST),
    "podSecurityContext": _closed(
        **_SECURITY,
        fsGroup=_maybe("integer"),
        fsGroupChangePolicy=_maybe("string"),
        supplementalGroups=_maybe("array"),
        supplementalGroupsPolicy=_maybe("string"),
        sysctls=_maybe("array"),
    ),
    "securityContext": _closed(
        **_SECURITY,
        allowPrivilegeEscalation=_maybe("boolean"),
        capabilities={"anyOf": [_closed(add=_LIST, drop=_LIST), {"type": "null"}]},
        privileged=_maybe("boolean"),
        procMount=_maybe("string"),
        readOnlyRootFilesystem=_maybe("boolean"),
    ),
    "affinity": _closed(nodeAffinity=_OBJECT, podAffinity=_OBJECT, podAntiAffinity=_OBJECT),
    "toleration": _closed(
        key=_TEXT,
        operator={"enum": ["Exists", "Equal"]},
        value=_TEXT,
        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        tolerationSeconds=_WHOLE,
    ),
    "env": _closed(
        "name",
        name={**_TEXT, "minLength": 1},
        value=_TEXT,
        valueFrom=_closed(
            secretKeyRef=_SECRET_KEY,
            configMapKeyRef=_SECRET_KEY,
            fieldRef=_OBJECT,
            resourceFieldRef=_OBJECT,
        ),
    ),
    "envFrom": _closed(
        prefix=_TEXT,
        secretRef=_closed("name", name=_TEXT, optional=_ON),
        configMapRef=_closed("name", name=_TEXT, optional=_ON),
    ),
    "initContainer": _closed(
        "name image",
        **dict.fromkeys(("name", "image", "imagePullPolicy", "workingDir", "restartPolicy"), _TEXT),
        **dict.fromkeys(("command", "args", "env", "envFrom", "ports", "volumeMounts"), _LIST),
        **dict.fromkeys(("volumeDevices", "resizePolicy"), _LIST),
        **dict.fromkeys(("resources", "securityContext", "lifecycle"), _OBJECT),
        **dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"), _OBJECT),
    ),
    # A volume's source is one of some thirty kinds.
    "volume": {"type": "object", "required": ["name"], "minProperties": 2, "maxProperties": 2},
    "volumeMount": _closed(
        "name mountPath",
        name=_TEXT,
        mountPath=_TEXT,
        subPath=_TEXT,
        subPathExpr=_TEXT,
        readOnly=_ON,
        mountPropagation=_TEXT,
    ),
    "behavior": _closed(scaleUp=_OBJECT, scaleDown=_OBJECT),
    "peer": _closed(podSelector=_OBJECT, namespaceSelector=_OBJECT, ipBlock=_OBJECT),
    "parentRef": _closed(
        "name",
        group=_TEXT,
        kind=_TEXT,
        name=_TEXT,
        namespace=_TEXT,
        sectionName=_TEXT,
        port=_PORT,
    ),
    "backend": _closed(
        "url",
        url={**_TEXT, "pattern": f"^{_URL}$"},
        meter={**_TEXT, "pattern": f"^{_URL}$"},
        apiKeySecret=_SECRET_KEY,
    ),
}


def definitions() -> dict[str, Schema]:
    """Every definition, with gateway.yaml's and meter.yaml's under `gateway.` and `meter.`."""
    found = dict(DEFINITIONS)
    # The chart writes these keys itself.
    written = {
        "gateway": {"models", "profile", "shadow", "meter_secret"},
        "meter": {"secret", "hz", "allow_unauthenticated"},
    }
    for prefix, schema in (
        ("gateway", config.build_json_schema()),
        ("meter", meter_config.build_json_schema()),
    ):
        for name, shape in schema["$defs"].items():
            found[f"{prefix}.{name}"] = _moved(shape, prefix)
        top = found[f"{prefix}.{schema['$ref'].rpartition('/')[2]}"]
        top["properties"] = {
            key: shape for key, shape in top["properties"].items() if key not in written[prefix]
        }
        top.pop("required", None)
    return _used(found)


def _moved(shape: Any, prefix: str) -> Any:
    """Point a schema's references to where its definitions are here."""
    if isinstance(shape, list):
        return [_moved(item, prefix) for item in shape]
    if not isinstance(shape, dict):
        return shape
    return {
        key: f"#/definitions/{prefix}.{value.rpartition('/')[2]}"
        if key == "$ref"
        else _moved(value, prefix)
        for key, value in shape.items()
        if key != "default"
    }


def _used(found: dict[str, Schema]) -> dict[str, Schema]:
    """Leave out what only the keys that the chart writes refer to."""
    roots, kept = [*DEFINITIONS, "gateway.GatewayConfig", "meter.MeterConfig"], {}
    while roots:
        name = roots.pop()
        if name not in kept:
            kept[name] = found[name]
            roots += _references(found[name])
    return dict(sorted(kept.items()))


def _references(shape: Any) -> list[str]:
    if isinstance(shape, list):
        return [name for item in shape for name in _references(item)]
    if not isinstance(shape, dict):
        return []
    mine = [shape["$ref"].rpartition("/")[2]] if isinstance(shape.get("$ref"), str) else []
    return mine + [name for value in shape.values() for name in _references(value)]
