"""Read a figure as a person does: the value that belongs to a name, found by the look of its legend entry."""

from matplotlib.colors import to_hex
from matplotlib.lines import Line2D


def look(artist):
    """The colour of an artist, and the line, marker or hatch that doubles it."""
    if isinstance(artist, Line2D):
        return to_hex(artist.get_color()), artist.get_linestyle(), artist.get_marker()
    return to_hex(artist.get_facecolor()), artist.get_hatch() or ""


def entries(legend):
    """The look of each name in a legend."""
    texts = [text.get_text() for text in legend.get_texts()]
    return {text: look(handle) for text, handle in zip(texts, legend.legend_handles, strict=True)}


def lines(axis, legend):
    """The points [[x, y], ...] of each curve, by its name in the legend; a list of curves where several look alike."""
    found = {}
    for text, wanted in entries(legend).items():
        found[text] = [line.get_xydata().tolist() for line in axis.lines if look(line) == wanted]
    return found


def bars(axis, legend):
    """The height of each bar, by its name in the legend and the name under it."""
    places = dict(zip(axis.get_xticks(), (label.get_text() for label in axis.get_xticklabels()), strict=True))
    found = {}
    for text, wanted in entries(legend).items():
        mine = [bar for container in axis.containers for bar in container if look(bar) == wanted]
        found[text] = {}
        for bar in mine:
            middle = bar.get_x() + bar.get_width() / 2
            nearest = min(places, key=lambda place: abs(place - middle))
            found[text][places[nearest]] = bar.get_height()
    return found


def rows(axis):
    """The length of each horizontal bar, by the name on its left."""
    places = dict(zip(axis.get_yticks(), (label.get_text() for label in axis.get_yticklabels()), strict=True))
    return {places[round(bar.get_y() + bar.get_height() / 2)]: bar.get_width() for bar in axis.patches}


def cells(axis, names=None):
    """The text in each cell of a heat map, by the names of its row and column; names: of an axis with the same rows."""
    columns = [label.get_text() for label in axis.get_xticklabels()]
    index = [label.get_text() for label in (names or axis).get_yticklabels()]
    found = {}
    for text in axis.texts:
        x, y = text.get_position()
        found[index[int(y)], columns[int(x)]] = text.get_text()
    return found


def colours(axis):
    """The colour of each cell of a heat map, by its row and column as numbers."""
    mesh = axis.collections[0]
    width = mesh.get_array().shape[1]
    return {divmod(i, width): to_hex(colour) for i, colour in enumerate(mesh.get_facecolors())}


def ticks(axis):
    """The text of the ticks that are in sight, by their place."""
    low, high = sorted(axis.get_view_interval())
    places = axis.get_ticklocs()
    texts = axis.get_major_formatter().format_ticks(places)
    return {round(p, 9): text for p, text in zip(places, texts, strict=True) if low <= p <= high}
