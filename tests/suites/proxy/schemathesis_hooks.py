"""How schemathesis sends a configuration."""

import schemathesis


@schemathesis.serializer("application/toml")
def toml(_context, value):
    return str(value).encode()
