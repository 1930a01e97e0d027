"""Write a learnt profile into its ConfigMap: `publish.py CONFIGMAP LEARNT NEW`.

Runs in the recalibration CronJob with a token that may make and patch that one object and nothing
else. Nothing but this script has it: the chart does not render it, so that upgrades, rollbacks and
tools that hold a cluster to a repository leave it alone. What was learnt before stays beside the
new profile as previous.json, for going back.
"""

# ruff: noqa: INP001, T201 - a script

import contextlib
import http.client
import json
import os
import ssl
import sys
from pathlib import Path

FIELD_MANAGER = "joulegate-recalibration"
ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))


def main(name: str, learnt: Path, new: Path) -> int:
    """Apply the ConfigMap unless nothing changed; return the exit code.

    A recalibration that finds the live profile good writes no new one; before the first that
    writes there is nothing learnt.
    """
    old_text = learnt.read_text("utf-8") if learnt.exists() else None
    new_text = new.read_text("utf-8") if new.exists() else old_text
    if new_text is None or old_text == new_text:
        print("the profile is as it was")
        return 0
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = (ACCOUNT / "namespace").read_text("utf-8")
    whole = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"profile.json": new_text},
    }
    if old_text is not None:
        whole["data"]["previous.json"] = old_text
    # Force: whoever edited it by hand, to go back say, does not stop the next run.
    query = f"fieldManager={FIELD_MANAGER}&force=true"
    path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
    body = json.dumps(whole).encode()
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=trust)
    try:
        connection.putrequest("PATCH", f"{path}?{query}")
        connection.putheader("authorization", f"Bearer {(ACCOUNT / 'token').read_text('utf-8')}")
        connection.putheader("content-type", "application/apply-patch+yaml")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            # The API may refuse, and close, before it has read it all.
            connection.send(body)
        answer = connection.getresponse()
        detail = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"https://{host}:{port}{path}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
        print(f"https://{host}:{port}{path}: {answer.status} {detail}", file=sys.stderr)
        return 1
    print(f"configmap {namespace}/{name}: a new profile of {len(new_text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
