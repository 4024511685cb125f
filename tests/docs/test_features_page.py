"""docs/features.md says what the definitions say."""

from feature_repo import values
from feature_repo.meanings import MEANINGS
from feature_repo.reference import BEGIN, END, PAGE, written
from feature_repo.views import views


def test_the_reference_is_that_of_the_definitions() -> None:
    page = PAGE.read_text("utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page == written(page), "run `python -m feature_repo.reference`"


def test_every_feature_has_one_meaning_and_shows_it_in_feast() -> None:
    names = [name for view in values.VIEWS.values() for name in view.fields]
    assert sorted(MEANINGS) == sorted(names)
    for view in views:
        assert {field.name: field.description for field in view.features} == {
            name: MEANINGS[name] for name in values.VIEWS[view.name].fields
        }
