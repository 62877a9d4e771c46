"""Whether the service of this container takes requests, by the exit status.

Asks `/ready` where the service's own settings say that it listens. Containers have no curl.
"""

import http.client
import os
import ssl
import sys

_SECONDS = 2.0


def main() -> None:
    """Exits with 0 if requests are taken, else with a message and 1."""
    port = int(os.environ.get("ARROWEMBED_PORT", "8080"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    if os.environ.get("ARROWEMBED_TLS_CERTIFICATE"):
        # The certificate is for the name that clients use, and this never leaves the container.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=_SECONDS, context=context
        )
    try:
        connection.request("GET", "/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer on port {port}: {error}")
    if status != http.client.OK:
        sys.exit(f"/ready answers {status}")


if __name__ == "__main__":
    main()
