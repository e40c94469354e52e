"""Which clients there are. A new one is a row here, and a script if none drives it yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .installing import key


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client: what to install for it (newest versions), and the script that drives it.

    ``packages`` are Python's, or npm's if the script is JavaScript; the version of the first is shown. The
    script is in ``scripts``, or one of those of the end-to-end tests. ``mode`` is for SDKs that can be told
    which revision to speak.
    """

    name: str
    packages: Sequence[str]
    script: str
    mode: str = "auto"
    note: str = ""

    @property
    def key(self) -> str:
        """Its name, as a file or a flag would have it."""
        return key(self.name)

    @property
    def is_javascript(self) -> bool:
        """Whether it runs on Node."""
        return self.script.endswith(".mjs")


CLIENTS: Final = (
    Client(name="Python SDK", packages=["mcp"], script="mcp_v2.py"),
    Client(name="Python SDK 1.x", packages=["mcp<2"], script="mcp_v1.py"),
    Client(name="FastMCP", packages=["fastmcp"], script="fastmcp_client.py"),
    Client(name="TypeScript SDK", packages=["@modelcontextprotocol/client"], script="sdk_v2.mjs"),
    Client(name="TypeScript SDK 1.x", packages=["@modelcontextprotocol/sdk"], script="sdk_v1.mjs"),
    Client(name="OpenAI Agents SDK", packages=["openai-agents"], script="openai_agents.py"),
    Client(name="Google ADK", packages=["google-adk", "mcp<2"], script="google_adk.py"),
    Client(name="Pydantic AI", packages=["pydantic-ai-slim[mcp]"], script="modern_pydantic_ai.py"),
    Client(name="LangChain", packages=["langchain-mcp-adapters"], script="langchain_adapters.py"),
    Client(
        name="LangChain JS",
        packages=["@langchain/mcp-adapters", "@langchain/core"],
        script="langchain_js.mjs",
    ),
    Client(name="LlamaIndex", packages=["llama-index-tools-mcp"], script="llama_index_tools.py"),
    Client(name="CrewAI", packages=["crewai-tools[mcp]", "mcp<2"], script="crewai_tools_mcp.py"),
    Client(name="Strands", packages=["strands-agents"], script="strands_agents.py"),
    Client(name="Agno", packages=["agno[mcp]"], script="agno_tools.py"),
    Client(name="smolagents", packages=["smolagents[mcp]", "mcp<2"], script="smolagents_tools.py"),
    Client(name="DSPy", packages=["dspy", "mcp<2"], script="dspy_tools.py"),
    Client(name="Haystack", packages=["mcp-haystack"], script="haystack_tools.py"),
    Client(name="Semantic Kernel", packages=["semantic-kernel[mcp]"], script="semantic_kernel_plugin.py"),
    Client(name="AutoGen", packages=["autogen-ext[mcp]", "mcp<2"], script="autogen_tools.py"),
    Client(name="mcp-use", packages=["mcp-use"], script="mcp_use_python.py"),
    Client(name="mcp-use TS", packages=["mcp-use", "langchain"], script="mcp_use.mjs"),
    Client(name="AI SDK", packages=["@ai-sdk/mcp"], script="modern_ai_sdk.mjs"),
    Client(name="Mastra", packages=["@mastra/mcp", "@mastra/core"], script="mastra.mjs"),
    Client(
        name="ContextForge",
        packages=["mcp-contextforge-gateway"],
        script="contextforge_gateway.py",
        note="a gateway, called by a client of the Python SDK; the proxy is between it and the server.",
    ),
)
