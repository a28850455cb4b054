"""The words that word problems are made of: things that can be counted, places to keep them."""

THINGS = (
    *("apples", "bells", "books", "boots", "bottles", "bricks", "buttons", "candles"),
    *("chairs", "clocks", "coins", "combs", "cups", "drums", "feathers", "figs"),
    *("flags", "forks", "gloves", "hammers", "hats", "jars", "keys", "kites"),
    *("ladders", "lamps", "lemons", "maps", "marbles", "nails", "owls", "pearls"),
    *("plates", "ropes", "shells", "spoons", "stamps", "stones", "tiles", "whistles"),
)
PLACES = (
    *("abbey", "arcade", "attic", "bakery", "barn", "boathouse", "cabin", "castle"),
    *("cellar", "chapel", "cottage", "dairy", "depot", "factory", "forge", "garage"),
    *("garden", "greenhouse", "harbour", "hospital", "hotel", "kitchen", "library", "lighthouse"),
    *("market", "mill", "museum", "office", "orchard", "palace", "pantry", "quarry"),
    *("school", "shed", "stable", "station", "studio", "theatre", "tower", "workshop"),
)
