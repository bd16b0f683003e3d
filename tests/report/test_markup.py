"""What comes from a file is text on the page, whatever it holds."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from distil.report.markup import Markup, element, escaped, joined


class Read(HTMLParser):
    """Tags, attributes and text as a browser would see them."""

    def __init__(self, markup):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_any_text_stays_text_in_content_and_attributes(text):
    read = Read(element("p", text, title=text))
    shown = text.encode("utf-8", "replace").decode()
    assert read.tags == [("p", {"title": shown})]
    assert read.text == shown


def test_what_would_be_markup_is_none():
    assert element("p", "<script>", title="\"'>") == '<p title="&quot;&#x27;&gt;">&lt;script&gt;</p>'


def test_elements_nest_and_are_escaped_once():
    inner = element("b", "a & b", class_="x", data_step=3, hidden=None)
    assert inner == '<b class="x" data-step="3">a &amp; b</b>'
    assert element("p", inner, " & ") == f"<p>{inner} &amp; </p>"
    assert joined(["<", inner], between=" · ") == f"&lt; · {inner}" and isinstance(joined([]), Markup)


def test_elements_without_an_end_have_none():
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">' and element("line", x1=0) == '<line x1="0"/>'


def test_a_lone_surrogate_does_not_keep_a_page_from_being_written():
    assert escaped("a\ud800b").encode() == b"a?b"
