""".ci/install.py: pip's settings reach uv."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci/install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_are_translated(install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    here, absent = tmp_path.as_uri(), (tmp_path / "absent").as_uri()
    made = install.uv_environment(
        {
            "index-url": "https://index.example/simple",
            "extra-index-url": f"{here} {absent} https://more.example/simple",
            "find-links": "/wheels https://links.example",
            "cert": "/etc/cert.pem",
            "trusted-host": "index.example",
            "default-timeout": "180",
        }
    )
    assert made["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert made["UV_INDEX"] == f"{here} https://more.example/simple"
    assert made["UV_FIND_LINKS"] == "/wheels,https://links.example"
    assert made["SSL_CERT_FILE"] == "/etc/cert.pem"
    assert made["UV_INSECURE_HOST"] == "index.example"
    assert made["UV_HTTP_TIMEOUT"] == "180"


def test_a_users_own_uv_settings_win(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine.example")
    assert install.uv_environment({"index-url": "https://other.example"})["UV_DEFAULT_INDEX"] == "https://mine.example"


def test_pip_variables_win_over_files(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "global.find-links='/from/file'\n:env:.find-links='/from/variable'\nglobal.index-url='https://a.example'\n"
        "install.index-url='https://b.example'\nglobal.extra-index-url='\\nhttps://c.example\\nhttps://d.example'\n"
    )
    monkeypatch.setattr(
        install.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=listing, stderr="")
    )
    settings = install.pip_settings()
    assert settings["find-links"] == "/from/variable"
    assert settings["index-url"] == "https://b.example"
    assert settings["extra-index-url"].split() == ["https://c.example", "https://d.example"]
