"""Reports: HTML for people, JUnit XML for continuous integration, Markdown for job summaries."""

from .job_summary import markdown
from .junit_xml import junit
from .page import render_html, write_html

__all__ = ["junit", "markdown", "render_html", "write_html"]
