"""States and countries as people write them after a city: codes, names, and common other names.

The admin1 codes are those of GeoNames, for the countries whose cities share names the most.
"""

from __future__ import annotations

from collections.abc import Mapping

# (country code, admin1 code of GeoNames): the name and how else it is written.
REGIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("AU", "01"): ("Australian Capital Territory", "ACT"),
    ("AU", "02"): ("New South Wales", "NSW"),
    ("AU", "03"): ("Northern Territory", "NT"),
    ("AU", "04"): ("Queensland", "QLD"),
    ("AU", "05"): ("South Australia", "SA"),
    ("AU", "06"): ("Tasmania", "TAS"),
    ("AU", "07"): ("Victoria", "VIC"),
    ("AU", "08"): ("Western Australia", "WA"),
    ("CA", "01"): ("Alberta", "AB"),
    ("CA", "02"): ("British Columbia", "BC"),
    ("CA", "03"): ("Manitoba", "MB"),
    ("CA", "04"): ("New Brunswick", "NB"),
    ("CA", "05"): ("Newfoundland and Labrador", "NL", "Newfoundland"),
    ("CA", "07"): ("Nova Scotia", "NS"),
    ("CA", "08"): ("Ontario", "ON"),
    ("CA", "09"): ("Prince Edward Island", "PE"),
    ("CA", "10"): ("Quebec", "QC"),
    ("CA", "11"): ("Saskatchewan", "SK"),
    ("CA", "12"): ("Yukon", "YT"),
    ("CA", "13"): ("Northwest Territories", "NT"),
    ("DE", "01"): ("Baden-Württemberg", "BW"),
    ("DE", "02"): ("Bavaria", "BY", "Bayern"),
    ("DE", "03"): ("Bremen", "HB"),
    ("DE", "04"): ("Hamburg", "HH"),
    ("DE", "05"): ("Hesse", "HE", "Hessen"),
    ("DE", "06"): ("Lower Saxony", "NI", "Niedersachsen"),
    ("DE", "07"): ("North Rhine-Westphalia", "NRW", "Nordrhein-Westfalen"),
    ("DE", "08"): ("Rhineland-Palatinate", "RP", "Rheinland-Pfalz"),
    ("DE", "09"): ("Saarland", "SL"),
    ("DE", "10"): ("Schleswig-Holstein", "SH"),
    ("DE", "11"): ("Brandenburg", "BB"),
    ("DE", "12"): ("Mecklenburg-Western Pomerania", "MV", "Mecklenburg-Vorpommern"),
    ("DE", "13"): ("Saxony", "SN", "Sachsen"),
    ("DE", "14"): ("Saxony-Anhalt", "ST", "Sachsen-Anhalt"),
    ("DE", "15"): ("Thuringia", "TH", "Thüringen"),
    ("DE", "16"): ("Berlin", "BE"),
    ("GB", "ENG"): ("England",),
    ("GB", "NIR"): ("Northern Ireland",),
    ("GB", "SCT"): ("Scotland",),
    ("GB", "WLS"): ("Wales",),
}
# Country codes, and what the country is called besides its code and its name in the table.
COUNTRIES: Mapping[str, tuple[str, ...]] = {
    "AE": ("UAE",),
    "AT": ("Österreich",),
    "BR": ("Brasil",),
    "CH": ("Schweiz", "Suisse", "Svizzera"),
    "CZ": ("Czech Republic",),
    "DE": ("Deutschland",),
    "ES": ("España",),
    "GB": ("UK", "U.K.", "Great Britain", "Britain"),
    "IT": ("Italia",),
    "KR": ("Korea",),
    "NL": ("Holland", "Nederland"),
    "TR": ("Türkiye",),
    "US": ("USA", "U.S.", "U.S.A.", "United States of America", "America"),
}
