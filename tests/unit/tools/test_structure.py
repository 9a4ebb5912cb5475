"""The report on packages and imports finds every kind of import, and every circle."""

from pathlib import Path

import pytest

from tools import structure


def package(folder: Path, **texts: str) -> Path:
    for name, text in {"": "", **texts}.items():
        path = folder / "shop" / (name.replace("__", "/") or "__init__")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return folder / "shop"


def test_relative_absolute_and_late_imports_are_arrows(tmp_path: Path) -> None:
    shop = package(
        tmp_path,
        goods__apple="import json\nfrom ..till import total\n",
        goods__pear="def late():\n    from . import apple\n",
        goods__plum="if TYPE_CHECKING:\n    import shop.goods.pear\n",
        till="total = 0\n",
    )
    modules = structure.modules_below(shop)
    graph = structure.import_graph(modules)
    assert graph["shop.goods.apple"] == {"shop.till"}
    assert graph["shop.goods.pear"] == {"shop.goods.apple"}
    assert graph["shop.goods.plum"] == {"shop.goods.pear"}
    assert structure.room_graph(graph, modules)["shop.goods"] == {"shop.till"}
    assert structure.circles(graph) == []


def test_circles_of_modules_and_of_rooms_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = package(tmp_path, a__one="from shop.b import two\n", a__three="", b__two="from shop.a import three\n")
    assert structure.report(shop) == 1
    assert "circle: shop.a -> shop.b -> shop.a" in capsys.readouterr().out
    package(tmp_path, a__three="from shop.a import one\n")
    assert structure.report(shop) == 2
    assert "circle: shop.a.one -> shop.b.two -> shop.a.three -> shop.a.one" in capsys.readouterr().out


@pytest.mark.parametrize("folder", structure.DEFAULT)
def test_nothing_of_ours_imports_in_a_circle(folder: str) -> None:
    assert structure.report(structure.ROOT / folder) == 0
