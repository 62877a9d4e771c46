"""A server of tools for whatever speaks the Model Context Protocol (MCP).

`arrowembed mcp` runs it; see docs/guides/mcp.md. `stdio` answers over standard input and output,
`http` over streamable HTTP, `server` is what both serve. All but this and `greeting` need the extra
`arrowembed[mcp]`.
"""
