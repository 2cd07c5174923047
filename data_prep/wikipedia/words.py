"""Words of MediaWiki and of the Wikipedias that a dump does not list itself: redirects, disambiguation pages, sections
of references, aliases of namespaces. All are compared in lower case, with spaces for underscores.
"""


def _words(text: str, between: str | None = ",") -> frozenset[str]:
    return frozenset(word.strip() for line in text.splitlines() for word in line.split(between) if word.strip())


# What may stand after the number sign of a redirect, beside the English word that works everywhere.
REDIRECT = _words("""
    redirect, weiterleitung, redirection, redirección, redireccion, rinvia, rinvio, rimando, doorverwijzing, patrz
    przekieruj, tam, redirecionamento, перенаправление, перенапр, перенаправлення, пренасочване, виж, преусмери
    přesměruj, presmeruj, omdirigering, ohjaus, uudelleenohjaus, átirányítás, yönlendir, yönlendirme, تحويل
    تغییرمسیر, تغییر مسیر, הפניה, 転送, リダイレクト, 重定向, 重新導向, 넘겨주기, đổi, alih, lencong
    ανακατευθυνση, ανακατεύθυνση, redirecteaza, alidirektu, alidirekti, birzuzendu, berbideratu, preusmjeri
    preusmeri, preusmeritev, peradresavimas, suuna, istiqamətləndirmə, yönləndirmə, გადამისამართება, айдау
    перанакіраванне, перенакіраваньне, пренасочување, अनुप्रेषित, पुनर्प्रेषित, পুনর্নির্দেশ, পুননির্দেশনা
    வழிமாற்று, เปลี่ยนทาง, tilvísun, ail-cyfeirio, adkas, վերահղում, ridrejto, elekeza, aanstuur, തിരിച്ചുവിടുക
    पुनर्निर्देशन, దారిమార్పు, رجوع مکرر, yoʻnaltirish, yonaltirish, doverywijs, ôfdowing
""")

# Templates that mark a page as a list of the meanings of a name.
DISAMBIGUATION = _words("""
    disambig, disambiguation, disamb, dab, disam, dbig, hndis
    hndisambig, geodis, numberdis, letter-numbercombdisambig
    letter disambig, letter-number combination disambiguation, school disambiguation
    schooldis, airport disambiguation
    callsigndis, call sign disambiguation, chinese title disambig, genus disambiguation, hospital disambiguation
    human name disambiguation, mathdab, mathematical disambiguation, molformdisambig, music disambiguation
    opus number disambiguation, phonetics disambiguation, place name disambiguation, portal disambiguation
    road disambiguation, roaddis, species latin name disambiguation, species latin name abbreviation disambiguation
    station disambiguation, synagogue disambiguation, taxonomic authority disambiguation, taxonomy disambiguation
    biology disambiguation, template disambiguation, tndis, wp disambig, disambiguation cleanup, disambig cleanup
    begriffsklärung, homonymie, paronymie, patronymie, toponymie, desambiguación, desambiguacion, desambiguação
    desambig, disambigua, dp, dpintro, ujednoznacznienie, неоднозначность, многозначность, неоднозначность/анг
    неоднозначність, багатозначність, пояснение, вишезначна одредница, вишезначност, вишезначница, razdvojba
    razločitev, rozcestník, rozlišovacia stránka, egyért, egyértelműsítő lap, anlam ayrımı, anlam ayrım
    dezambiguizare, dezambig, desambiguació, trang định hướng, định hướng, disambigs, αποσαφήνιση, apartigilo
    gren, förgrening, betydelselista, flertydig, peker, täsmennyssivu, täpsustuslehekülg, nuorodinis, argipen
    homónimos, բազմիմաստություն, მრავალმნიშვნელოვანი, aimai, 曖昧さ回避, 人名の曖昧さ回避, 地名の曖昧さ回避, 消歧义
    消歧義, 同名消歧义, 동음이의, توضيح, פירושונים, ابهام‌زدایی, ابهام زدایی, неадназначнасць
    айрық, алғы бет, ujednoznačnění, aðgreining, nozīmju atdalīšana, dəqiqləşdirmə, बहुविकल्पी, দ্ব্যর্থতা নিরসন
""")

# The bracket at the end of the title of such a page.
DISAMBIGUATION_TITLES = _words("""
    disambiguation, begriffsklärung, homonymie, desambiguación, desambiguação, disambigua, doorverwijspagina
    ujednoznacznienie, значения, значення, пояснение, вишезначна одредница, razdvojba, rozcestník, egyértelműsítő lap
    anlam ayrımı, dezambiguizare, desambiguació, định hướng, disambiguasi, αποσαφήνιση, apartigilo, olika betydelser
    flertydig, andre betydninger, täsmennyssivu, täpsustus, 曖昧さ回避, 消歧义, 消歧義, 동음이의, توضيح, ابهام‌زدایی
    פירושונים
""")

# Titles of sections that hold sources and links, not prose.
APPARATUS = _words("""
    references, reference, notes, notes and references, references and notes, footnotes
    citations, sources, works cited
    notes and sources, sources and notes, citations and notes, notes and citations, general references
    references and sources, sources and references, specific references, inline citations, reference notes
    explanatory notes, endnotes, bibliography, further reading, external links, external link, see also, links
    references and further reading, further reading and references
    references and external links, selected bibliography
    external links and references, external links and further reading, further reading and external links, weblinks
    recommended reading, additional reading, literature, cited sources, cited works, general sources, primary sources
    secondary sources, related links, other sources, external sources, image gallery, gallery
    einzelnachweise, literatur, siehe auch, quellen, fußnoten
    anmerkungen, externe links, anmerkungen und einzelnachweise
    quellen und einzelnachweise, references, notes et références, références
    voir aussi, liens externes, bibliographie
    articles connexes, annexes, lien externe, liens internes, sources et références, notes, pour approfondir
    referencias, véase también, enlaces externos, bibliografía, notas, notas y referencias, fuentes, notas al pie
    note, bibliografia, voci correlate, collegamenti esterni, altri progetti, note e riferimenti
    referências, ver também, ligações externas, bibliografia, leitura adicional, notas e referências, ligação externa
    referenties, zie ook, externe links, externe link, literatuur, bronnen
    noten, voetnoten, bronnen, noten en referenties
    przypisy, zobacz też, linki zewnętrzne, bibliografia, uwagi
    примечания, литература, ссылки, см. также, источники, сноски, библиография, примечания и источники
    примітки, література, посилання, див. також, джерела, виноски
    бележки, източници, външни препратки, вижте също, виж още, литература, използвана литература, бележки и източници
    цитирана литература, препратки, литература и източници, бележки под линия
    референце, спољашње везе, види још, напомене, извори, наводи
    izvori, vanjske poveznice, također pogledajte, bilješke
    reference, externí odkazy, související články, poznámky, literatura, odkazy, referencie, externé odkazy, pozri aj
    referenser, se även, externa länkar, litteratur, källor, noter, fotnoter, vidare läsning
    referencer, se også, eksterne henvisninger, eksterne links, kilder, noter
    referanser, eksterne lenker, litteratur
    lähteet, katso myös, aiheesta muualla, viitteet, kirjallisuutta, ulkoiset linkit
    források, lásd még, jegyzetek, további információk, irodalom, külső hivatkozások
    kaynakça, ayrıca bakınız, dış bağlantılar, notlar, konuyla ilgili yayınlar
    note, vezi și, legături externe, bibliografie, referințe, lectură suplimentară
    referències, vegeu també, enllaços externs, notes i referències
    παραπομπές, δείτε επίσης, εξωτερικοί σύνδεσμοι, πηγές, βιβλιογραφία, σημειώσεις
    脚注, 関連項目, 外部リンク, 参考文献, 出典, 注釈, 参考资料, 參考資料, 参考文献
    參考文獻, 外部链接, 外部連結, 参见, 參見
    注释, 註釋, 延伸阅读, 延伸閱讀, 参考, 각주, 같이 보기, 외부 링크, 참고 문헌, 주해, 참고 자료
    مراجع, انظر أيضا, انظر أيضًا, وصلات خارجية, المصادر, هوامش, منابع, جستارهای وابسته, پیوند به بیرون, پانویس
    הערות שוליים, קישורים חיצוניים, ראו גם, לקריאה נוספת, tham khảo, xem thêm, liên kết ngoài, chú thích
    referensi, lihat pula, pranala luar, catatan kaki, lihat juga, rujukan, pautan luar, सन्दर्भ, बाहरी कड़ियाँ
    इन्हें भी देखें, তথ্যসূত্র, আরও দেখুন, বহিঃসংযোগ
""")

# The site's own names stand in the dump; these older aliases do not.
FILE_ALIASES = _words("""
    file, image, datei, bild, fichier, archivo, imagen, immagine, ficheiro
    imagem, arquivo, bestand, afbeelding, plik
    grafika, файл, изображение, картинка, зображення, датотека, слика, soubor, súbor, obrázok, fil, billede, tiedosto
    kuva, fájl, kép, dosya, resim, fișier, imagine, fitxer, imatge, αρχείο, εικόνα
    ファイル, 画像, 文件, 檔案, 图像, 圖像
    파일, 그림, ملف, صورة, پرونده, تصویر, קובץ, תמונה, tập tin, hình, berkas, gambar, चित्र, চিত্র, dosiero
    datoteka, slika, vaizdas, attēls, pilt, şəkil, fayl, պատկեր, ფაილი, выява, сурет, ไฟล์, ภาพ, fitxategi, irudi
""")
CATEGORY_ALIASES = _words("""
    category, kategorie, catégorie, categoría, categoria, categorie, kategoria, категория, категорія, категорија
    kategória, kategori, luokka, κατηγορία, カテゴリ, 分类, 分類, 분류, تصنيف, رده, קטגוריה, thể loại, श्रेणी
    বিষয়শ্রেণী, kategorio, kategorija, kateqoriya, կատեգորիա, კატეგორია, катэгорыя, санат, หมวดหมู่
""")

# Prefixes of links to the same article in another language.
LANGUAGES = _words(
    """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
    bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br
    bs btm bug bxr ca cbk-zam cdo ce ceb
    ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty
    dv dz ee el eml en eo es et eu ext fa
    fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn
    gom gor got gpe gsw gu guc gur guw gv ha
    hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo
    inh io is it iu ja jam jbo jv ka kaa kab
    kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld
    lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni
    mnw mo mos mr mrj ms mt mus mwl my myv
    mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup
    nv ny oc olo om or os pa pag pam pap
    pcd pcm pdc pdt pfl pi pih pl pms pnb pnt ps pt pwn qu rki rm rmy rn ro
    roa-rup roa-tara rsk ru rue rw sa sah sat sc
    scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq sr srn
    ss st stq su sv sw syl szl szy ta tay
    tcy tdd te tet tg th ti tig tk tl tly tn to tok tpi tr trv ts tt tum tw ty
    tyv udm ug uk ur uz ve vec vep vi vls vo
    vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-cfr zh-classical zh-min-nan zh-yue zu
    """,
    None,
)
# Prefixes of links to the sister projects, which the text shows without them.
PROJECTS = _words(
    """
    w wikipedia wikt wiktionary s wikisource b wikibooks q wikiquote n wikinews v wikiversity voy wikivoyage species
    wikispecies c commons m meta d wikidata mw
    """,
    None,
)
