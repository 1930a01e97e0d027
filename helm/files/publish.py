"""Write a new profile into its ConfigMap: `publish.py CONFIGMAP LIVE NEW`.

Runs in the recalibration CronJob with a token that may patch that one object and nothing else. The
profile that was live stays beside the new one as previous.json, for going back.
"""

# ruff: noqa: INP001, T201 - a script

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))


def main(name: str, live: Path, new: Path) -> int:
    """Patch the ConfigMap unless nothing changed; return the exit code.

    A recalibration that finds the live profile good writes no new one.
    """
    old_text = live.read_text("utf-8")
    new_text = new.read_text("utf-8") if new.exists() else old_text
    if old_text == new_text:
        print("the profile is as it was")
        return 0
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    namespace = (ACCOUNT / "namespace").read_text("utf-8")
    data = {"profile.json": new_text, "previous.json": old_text}
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/namespaces/{namespace}/configmaps/{name}",
        data=json.dumps({"data": data}).encode(),
        headers={
            "authorization": f"Bearer {(ACCOUNT / 'token').read_text('utf-8')}",
            "content-type": "application/merge-patch+json",
        },
        method="PATCH",
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        urllib.request.urlopen(request, timeout=30, context=trust).close()  # noqa: S310
    except OSError as error:
        detail = error.read().decode(errors="replace") if hasattr(error, "read") else ""
        print(f"{request.full_url}: {error} {detail}", file=sys.stderr)
        return 1
    print(f"configmap {namespace}/{name}: a new profile of {len(new_text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
