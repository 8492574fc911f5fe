"""Hand-kept tables of build_gazetteer.py: what no data package says.

Folded forms decide equality, so case, accents and punctuation do not matter here.
"""

# Display names where GeoNames' short form is dated or unusual.
COUNTRY_NAME = {
    "BQ": "Caribbean Netherlands",
    "CI": "Ivory Coast",
    "CW": "Curaçao",
    "NL": "Netherlands",
    "PS": "Palestine",
    "RE": "Réunion",
    "BL": "Saint Barthélemy",
    "ST": "São Tomé and Príncipe",
    "AX": "Åland Islands",
    "TL": "Timor-Leste",
    "VA": "Vatican City",
}

# Aliases in use that CLDR's territory names lack.
COUNTRY_ALIASES = {
    "AE": ["UAE", "Emirates", "ОАЭ"],
    "AR": ["Argentine Republic"],
    "AU": ["Commonwealth of Australia"],
    "BA": ["Bosnia", "Bosnia & Herzegovina", "BiH"],
    "BN": ["Brunei Darussalam"],
    "BO": ["Plurinational State of Bolivia"],
    "BY": ["Byelorussia", "Belorussia"],
    "CD": ["DR Congo", "DRC", "Congo DR", "Congo Kinshasa", "Democratic Republic of Congo",
           "Zaire"],
    "CF": ["CAR"],
    "CG": ["Congo", "Congo Brazzaville", "Congo Republic", "Republic of Congo"],
    "CH": ["Swiss Confederation"],
    "CI": ["Cote d'Ivoire", "Republic of Cote d'Ivoire"],
    "CN": ["PRC", "People's Republic of China", "Mainland China", "China mainland",
           "中华人民共和国"],
    "CV": ["Cape Verde"],
    "CZ": ["Czech Republic", "Czechia"],
    "DE": ["Federal Republic of Germany", "Bundesrepublik Deutschland"],
    "DO": ["Dominican Rep", "Republica Dominicana"],
    "FK": ["Falklands", "Malvinas"],
    "FM": ["Federated States of Micronesia"],
    "FR": ["French Republic", "Metropolitan France"],
    "GA": ["Gabonese Republic"],
    "GB": ["UK", "Great Britain", "Britain",
           "United Kingdom of Great Britain and Northern Ireland"],
    "GM": ["The Gambia", "Gambia"],
    "GR": ["Hellenic Republic", "Hellas"],
    "HK": ["Hong Kong SAR", "Hong Kong China", "HKSAR"],
    "HR": ["Hrvatska"],
    "IE": ["Republic of Ireland", "Eire"],
    "IR": ["Islamic Republic of Iran", "Persia"],
    "IT": ["Italian Republic"],
    "JO": ["Hashemite Kingdom of Jordan"],
    "KG": ["Kyrgyz Republic", "Kirghizia", "Kirgizstan"],
    "KP": ["DPRK", "Democratic People's Republic of Korea", "Korea North"],
    "KR": ["Korea", "Republic of Korea", "ROK", "Korea South", "S Korea", "한국"],
    "LA": ["Lao PDR", "Lao People's Democratic Republic", "Lao"],
    "LB": ["Lebanese Republic"],
    "LK": ["Ceylon"],
    "LY": ["Libyan Arab Jamahiriya"],
    "MD": ["Republic of Moldova", "Moldavia"],
    "MK": ["Macedonia", "FYROM", "FYR Macedonia", "Republic of North Macedonia"],
    "MM": ["Burma", "Republic of the Union of Myanmar"],
    "MO": ["Macau", "Macao SAR", "Macau SAR", "Macau China"],
    "NL": ["Holland", "Holanda", "Hollande", "Голландия", "The Netherlands",
           "Kingdom of the Netherlands"],
    "PS": ["Palestinian Authority", "State of Palestine", "West Bank", "Gaza Strip",
           "Palestinian Territory", "Occupied Palestinian Territory"],
    "PT": ["Portuguese Republic"],
    "RU": ["Russian Federation"],
    "SK": ["Slovak Republic"],
    "SY": ["Syrian Arab Republic"],
    "SZ": ["Swaziland"],
    "TG": ["Togolese Republic"],
    "TL": ["East Timor"],
    "TR": ["Turkey", "Turkiye", "Republic of Turkiye"],
    "TW": ["Taiwan ROC", "Republic of China", "Chinese Taipei", "Taiwan Province of China",
           "Taiwan China", "Formosa"],
    "TZ": ["United Republic of Tanzania"],
    "US": ["USA", "U.S.", "America", "EE.UU.", "EEUU", "EUA", "США", "アメリカ", "米国",
           "United States of America", "The States"],
    "UY": ["Oriental Republic of Uruguay"],
    "VA": ["Vatican", "Holy See", "Vatican City State"],
    "VE": ["Bolivarian Republic of Venezuela"],
    "VI": ["United States Virgin Islands", "US Virgin Islands", "USVI"],
    "VG": ["BVI"],
    "VN": ["Viet Nam"],
    "XK": ["Republic of Kosovo"],
}

# City names by GeoNames id; the codes would fall to the rule against short codes.
CITY_ALIASES = {
    5128581: ["NYC", "New York"],
    5368361: ["LA"],
    5391959: ["SF"],
    4140963: ["DC", "Washington DC", "Washington"],
    1735161: ["KL"],
    1566083: ["HCMC", "Saigon"],
    1819729: ["HK"],
}

# Points of places without any listed settlement: a station or the middle of the land.
POINTS = {
    "AQ": (-77.8460, 166.6760),  # McMurdo Station
    "BV": (-54.4232, 3.4132),
    "HM": (-53.1000, 73.5167),
    "UM": (28.2072, -177.3735),  # Midway
}

# Territories that have an ISO code of their own and that people also write under another state.
# A query that names the state also finds the places of its territories; the result always carries
# the territory's own ISO code. This is a rule for reading names, not a view on sovereignty.
TERRITORY_OF = {
    "AS": "US", "GU": "US", "MP": "US", "PR": "US", "UM": "US", "VI": "US",
    "AX": "FI",
    "BL": "FR", "GF": "FR", "GP": "FR", "MF": "FR", "MQ": "FR", "NC": "FR", "PF": "FR",
    "PM": "FR", "RE": "FR", "TF": "FR", "WF": "FR", "YT": "FR",
    "AI": "GB", "BM": "GB", "FK": "GB", "GG": "GB", "GI": "GB", "GS": "GB", "IM": "GB",
    "IO": "GB", "JE": "GB", "KY": "GB", "MS": "GB", "PN": "GB", "SH": "GB", "TC": "GB",
    "VG": "GB",
    "CC": "AU", "CX": "AU", "HM": "AU", "NF": "AU",
    "AW": "NL", "BQ": "NL", "CW": "NL", "SX": "NL",
    "BV": "NO", "SJ": "NO",
    "CK": "NZ", "NU": "NZ", "TK": "NZ",
    "FO": "DK", "GL": "DK",
    "HK": "CN", "MO": "CN", "TW": "CN",
    "XK": "RS",
}

# Languages whose country names are kept: the ones a vision-language model answers in.
LOCALES = """
af am ar az be bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gl gu he hi hr hu hy id is it
ja ka kk km kn ko ky lo lt lv mk ml mn mr ms my nb ne nl nn pa pl ps pt pt_PT ro ru si sk sl sq sr
sr_Latn sv sw ta te th tr uk ur uz vi yue zh zh_Hant zu
""".split()

# Words that say "administrative unit" and nothing else; dropped when two region lists are joined.
GENERIC_REGION_WORDS = set("""
province region state oblast krai republic governorate prefecture district county department
municipality canton parish council city of the autonomous territory division special
""".split())
