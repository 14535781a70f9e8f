"""The words of the demo corpus: what can be reviewed, and what can be said of it, in two polarities.

Entries are separated by commas. Of an aspect, `name:group`, a star marks a plural and a tilde a noun without an article
in the singular ("such lively acting"). Groups name the adjectives that go with an aspect.
"""


def entries(text: str) -> tuple[str, ...]:
    """The comma-separated entries of a text, in order."""
    return tuple(" ".join(entry.split()) for entry in text.split(",") if entry.strip())


def pair(positive: str, negative: str) -> dict[int, tuple[str, ...]]:
    """A list for each polarity: +1 and -1."""
    return {1: entries(positive), -1: entries(negative)}


# What is reviewed: (domain, nouns, aspects).
KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "film",
        "film, movie, picture",
        """plot:story, story:story, script:story, screenplay:story, premise:story,
        ending:story, final act:pace, first half:pace, pacing~:pace, editing~:pace, dialogue~:prose,
        acting~:performance, lead performance:performance, supporting cast:performance, young lead:performance,
        direction~:performance, photography~:visual, set design:visual, lighting~:visual, soundtrack:sound,
        score:sound, hero:character, villain:character, heroine:character, love story:emotion, farewell
        scene:emotion""",
    ),
    (
        "film",
        "thriller, crime drama, spy film",
        """plot:story, twist:story, premise:story, climax:pace, chase
        scenes*:pace, editing~:pace, dialogue~:prose, detective:character, killer:character, lead
        performance:performance, cast:performance, camerawork~:visual, score:sound, sound design:sound,
        ending:story, interrogation scene:emotion""",
    ),
    (
        "film",
        "comedy, romantic comedy, farce",
        """jokes*:humour, one-liners*:humour, banter~:humour,
        slapstick~:humour, script:story, premise:story, ending:story, lead couple:character, best friend:character,
        comic timing~:performance, cast:performance, costumes*:visual, theme tune:sound, pacing~:pace, proposal
        scene:emotion""",
    ),
    (
        "film",
        "documentary, nature film",
        """narration~:prose, interviews*:emotion, archive footage~:visual,
        photography~:visual, argument:story, opening:pace, editing~:pace, score:sound, presenter:performance,
        closing chapter:emotion""",
    ),
    (
        "film",
        "musical, animated film",
        """songs*:sound, choruses*:sound, choreography~:visual, animation~:visual,
        backgrounds*:visual, story:story, voice cast:performance, dancers*:performance, sidekick:character,
        gags*:humour, finale:emotion, second half:pace""",
    ),
    (
        "book",
        "novel, book, debut novel",
        """plot:story, storyline:story, opening chapter:pace, middle section:pace,
        last chapters*:pace, ending:story, prose~:prose, dialogue~:prose, translation:prose, narrator:character,
        protagonist:character, minor characters*:character, humour~:humour, love story:emotion, descriptions*:prose""",
    ),
    (
        "book",
        "biography, memoir, history",
        """prose~:prose, research~:argument, argument:argument,
        footnotes*:argument, early chapters*:pace, final chapter:emotion, childhood scenes*:emotion,
        portraits*:character, photographs*:visual, anecdotes*:humour, structure:story, conclusion:argument""",
    ),
    (
        "book",
        "short story collection, poetry collection",
        """opening story:story, title story:story,
        language~:prose, imagery~:prose, characters*:character, wit~:humour, closing pages*:emotion, rhythm:pace,
        illustrations*:visual, dialogues*:prose""",
    ),
    (
        "restaurant",
        "restaurant, bistro, brasserie",
        """soup:dish, starters*:dish, steak:meat, fish~:meat,
        lamb~:meat, risotto:dish, desserts*:baking, bread~:baking, sauces*:dish, house wine:drink,
        waiters*:service, service~:service, head waiter:service, dining room:place, terrace:place, background
        music~:sound, prices*:price, bill:price, wine list:choice, menu:choice""",
    ),
    (
        "restaurant",
        "pizzeria, noodle bar, curry house, diner",
        """dough:baking, noodles*:dish, curry:dish,
        dumplings*:dish, burgers*:meat, chicken wings*:meat, salad:dish, toppings*:dish, lemonade~:drink,
        portions*:price, lunch deal:price, staff*:service, waitress:service, kitchen:service, seats*:comfort,
        window tables*:place, menu:choice, delivery~:service""",
    ),
    (
        "restaurant",
        "café, bakery, tea room",
        """coffee~:drink, croissants*:baking, cakes*:baking, scones*:baking,
        sandwiches*:dish, hot chocolate~:drink, barista:service, owner:service, garden:place, sofas*:comfort,
        prices*:price, selection:choice, playlist:sound""",
    ),
    (
        "hotel",
        "hotel, resort, country hotel",
        """room:place, bathroom:place, lobby:place, pool:place,
        gardens*:place, spa:place, bed:comfort, mattress:comfort, pillows*:comfort, receptionist:service,
        staff*:service, concierge:service, room service~:service, breakfast~:dish, dinner~:dish, rates*:price,
        minibar:price, air conditioning~:function, lifts*:function, wifi~:function""",
    ),
    (
        "hotel",
        "guest house, hostel, inn, holiday flat",
        """bedroom:place, kitchen:place, courtyard:place,
        shower:function, heating~:function, bunk beds*:comfort, armchairs*:comfort, duvet:comfort, host:service,
        landlady:service, cleaners*:service, breakfast~:dish, rate:price, view:visual, decoration~:visual""",
    ),
    (
        "product",
        "laptop, tablet, phone",
        """keyboard:build, hinge:build, casing:build, battery:function,
        screen:visual, speakers*:sound, microphone:sound, camera:function, fan:function, fingerprint
        reader:function, software~:software, menus*:software, updates*:software, price:price, design:visual,
        support team:service""",
    ),
    (
        "product",
        "kettle, coffee machine, blender, toaster",
        """lid:build, handle:build, motor:function,
        thermostat:function, timer:function, blades*:function, water tank:build, switch:build, manual:software,
        colour:visual, price:price, finish:visual, customer service~:service""",
    ),
    (
        "product",
        "backpack, suitcase, tent, pair of boots",
        """zips*:build, straps*:build, stitching~:build,
        fabric:build, buckles*:build, lining:build, padding~:comfort, fit:comfort, look:visual, colours*:visual,
        price:price, returns desk:service, waterproofing~:build""",
    ),
    (
        "product",
        "vacuum cleaner, washing machine, lawnmower, electric drill",
        """suction~:function, motor:function,
        filter:function, hose:build, wheels*:build, grip:comfort, display:software, controls*:software,
        instructions*:software, charger:function, price:price, repair service:service, sensor:function""",
    ),
    (
        "product",
        "pair of headphones, radio, record player",
        """bass~:sound, treble~:sound, speakers*:sound, ear
        cushions*:comfort, headband:comfort, cable:build, dial:build, case:build, noise cancelling~:function,
        bluetooth connection:function, app:software, look:visual, price:price, helpline:service""",
    ),
)

# Adjectives by group of aspects.
ADJECTIVES: dict[str, dict[int, tuple[str, ...]]] = {
    "story": pair(
        """clever, gripping, inventive, absorbing, satisfying, ingenious, well constructed, original, believable,
        intricate, tightly woven, surprising, intelligent, coherent, engaging, imaginative, elegant, suspenseful,
        rich, fresh, unpredictable, neatly resolved, compelling""",
        """predictable, thin, muddled, contrived, far-fetched, incoherent, formulaic, threadbare, implausible,
        recycled, derivative, convoluted, ludicrous, hackneyed, shapeless, feeble, half-baked, nonsensical, stale,
        overcomplicated, unconvincing, rushed, paper-thin, clichéd""",
    ),
    "pace": pair(
        """brisk, taut, lively, exciting, gripping, crisp, assured, nimble, electrifying, well judged, thrilling,
        tight, exhilarating, energetic, breathless, absorbing, sure-footed, vigorous""",
        """sluggish, plodding, uneven, choppy, draggy, tedious, flabby, interminable, jerky, leaden, slack,
        repetitive, lethargic, bloated, monotonous, ponderous, erratic, overlong""",
    ),
    "prose": pair(
        """sparkling, witty, crisp, elegant, lyrical, vivid, natural, sharp, eloquent, graceful, luminous, precise,
        fluent, evocative, pithy, limpid, quotable, musical, polished, expressive""",
        """stilted, wooden, clumsy, turgid, flowery, leaden, overwrought, pompous, flat, trite, laboured, garbled,
        long-winded, pretentious, cliché-ridden, lifeless, unreadable, purple, mannered, banal""",
    ),
    "performance": pair(
        """convincing, magnetic, nuanced, brilliant, charismatic, committed, subtle, assured, riveting, believable,
        gifted, spirited, commanding, electrifying, effortless, flawless, mesmerising, heartfelt, masterly,
        luminous""",
        """wooden, stiff, unconvincing, hammy, lifeless, amateurish, miscast, clumsy, listless, overdone,
        half-hearted, bland, self-conscious, grating, charmless, forced, incompetent, expressionless, uninspired,
        mechanical""",
    ),
    "visual": pair(
        """beautiful, gorgeous, striking, stunning, elegant, sumptuous, vivid, handsome, breathtaking, radiant,
        stylish, tasteful, dazzling, crisp, ravishing, eye-catching, lovely, exquisite, picturesque, sleek""",
        """ugly, drab, murky, garish, shabby, gloomy, tacky, dated, blurry, hideous, cheap-looking, dull,
        washed-out, tasteless, bleak, lurid, unsightly, dreary, gaudy, faded""",
    ),
    "sound": pair(
        """rousing, catchy, haunting, melodious, crystal clear, rich, warm, stirring, soothing, infectious, lush,
        memorable, full-bodied, mellow, hypnotic, uplifting, glorious, crisp, spirited""",
        """tinny, deafening, grating, muffled, shrill, muddy, repetitive, intrusive, monotonous, distorted,
        jarring, syrupy, tuneless, ear-splitting, harsh, blaring, feeble, scratchy, forgettable, hollow""",
    ),
    "character": pair(
        """likeable, complex, sympathetic, endearing, memorable, fascinating, lovable, believable, well drawn,
        charming, three-dimensional, winning, relatable, irresistible, vivid, magnetic, convincing, captivating""",
        """one-dimensional, unlikeable, flat, insufferable, underwritten, whiny, bland, cardboard, obnoxious,
        stereotypical, tiresome, charmless, hollow, grating, lifeless, insipid, irritating, cartoonish""",
    ),
    "humour": pair(
        """hilarious, witty, sharp, side-splitting, clever, irresistible, inspired, warm, deadpan, infectious,
        delightful, dry, good-natured, uproarious, quick-witted, priceless, playful, mischievous""",
        """unfunny, crude, stale, lame, juvenile, mean-spirited, forced, tasteless, corny, cringeworthy,
        predictable, laboured, puerile, tired, groan-inducing, desperate, toothless, cheap""",
    ),
    "emotion": pair(
        """moving, touching, tender, heartfelt, poignant, sincere, affecting, heart-warming, honest, unforgettable,
        uplifting, restrained, powerful, bittersweet, deeply felt, graceful, stirring, cathartic""",
        """mawkish, sentimental, manipulative, saccharine, cold, cloying, soppy, phoney, hollow, overblown,
        unearned, cheesy, schmaltzy, sappy, perfunctory, insincere, maudlin, embarrassing""",
    ),
    "argument": pair(
        """persuasive, rigorous, illuminating, lucid, meticulous, balanced, thorough, insightful, convincing,
        authoritative, scrupulous, perceptive, impeccable, sound, enlightening, impressive, careful, nuanced""",
        """sloppy, shaky, superficial, one-sided, careless, misleading, unreliable, flimsy, biased, confused,
        dubious, shallow, tendentious, patchy, inaccurate, impenetrable, woolly, slapdash""",
    ),
    "dish": pair(
        """delicious, tasty, mouth-watering, fresh, fragrant, divine, flavourful, perfectly seasoned, moreish,
        delectable, home-made, piping hot, heavenly, exquisite, wholesome, appetising, aromatic, beautifully
        presented, zesty, satisfying""",
        """bland, soggy, stale, greasy, cold, tasteless, inedible, lukewarm, stodgy, watery, flavourless, oily,
        rancid, unappetising, revolting, reheated, insipid, over-salted, gluey, slimy""",
    ),
    "meat": pair(
        """succulent, tender, juicy, delicious, tasty, flavourful, cooked to perfection, mouth-watering, fresh,
        divine, exquisite, smoky, melt-in-the-mouth, well seasoned, crisp, lean""",
        """rubbery, chewy, dry, overcooked, undercooked, burnt, greasy, tough, stringy, bland, raw in the middle,
        gristly, tasteless, lukewarm, leathery, inedible""",
    ),
    "baking": pair(
        """fluffy, crisp, fresh, buttery, scrumptious, golden, heavenly, delicious, light, home-made, luscious,
        moist, moreish, irresistible, warm from the oven, airy""",
        """stale, soggy, dry, burnt, stodgy, doughy, rock-hard, tasteless, crumbling, sickly, leathery,
        cardboard-like, inedible, bland, greasy, undercooked""",
    ),
    "drink": pair(
        """aromatic, smooth, refreshing, delicious, velvety, fragrant, freshly made, well balanced, generous,
        full-bodied, invigorating, delectable""",
        """watery, bitter, undrinkable, weak, lukewarm, insipid, flat, sour, stale, sickly, tasteless, diluted""",
    ),
    "service": pair(
        """friendly, attentive, welcoming, helpful, courteous, prompt, obliging, cheerful, efficient,
        knowledgeable, gracious, polite, kind, considerate, impeccable, professional, warm, responsive, thoughtful,
        unfailingly polite""",
        """rude, surly, slow, indifferent, dismissive, incompetent, unhelpful, arrogant, snooty, inattentive,
        clueless, impolite, disorganised, sullen, brusque, unfriendly, grumpy, condescending, sloppy, hostile""",
    ),
    "place": pair(
        """spotless, cosy, spacious, charming, bright, peaceful, inviting, airy, comfortable, immaculate,
        luxurious, homely, stylish, tranquil, sunny, elegant, serene, idyllic, gleaming, delightful""",
        """dirty, cramped, noisy, grubby, dingy, smelly, filthy, draughty, mouldy, overcrowded, shabby, damp,
        squalid, claustrophobic, gloomy, stuffy, grimy, run-down, musty, soulless""",
    ),
    "comfort": pair(
        """comfortable, soft, snug, supportive, plush, roomy, cosy, well padded, ergonomic, generous, supple,
        luxurious, cushioned, gentle, restful, heavenly""",
        """uncomfortable, lumpy, hard, saggy, scratchy, stiff, wobbly, cramped, painful, thin, punishing, itchy,
        creaky, unforgiving, clammy, bumpy""",
    ),
    "price": pair(
        """fair, reasonable, affordable, modest, unbeatable, attractive, sensible, generous, competitive, honest,
        welcome, tempting""",
        """outrageous, extortionate, excessive, steep, ridiculous, shameless, inflated, unjustified, scandalous,
        absurd, insulting, eye-watering""",
    ),
    "choice": pair(
        """varied, imaginative, inventive, well chosen, tempting, adventurous, impressive, generous, enticing,
        thoughtful, inspired, wide-ranging""",
        """limited, unimaginative, boring, confusing, skimpy, overpriced, uninspired, meagre, predictable, chaotic,
        dreary, paltry""",
    ),
    "build": pair(
        """sturdy, solid, durable, robust, well made, tough, hard-wearing, reliable, well finished, indestructible,
        dependable, sound, smooth, rugged, precise, strong""",
        """flimsy, fragile, shoddy, wobbly, brittle, cheap, loose, rickety, badly made, creaky, defective, leaky,
        crooked, frayed, clunky, ill-fitting""",
    ),
    "function": pair(
        """reliable, powerful, efficient, responsive, dependable, quick, accurate, impressive, effective, flawless,
        quiet, consistent, faultless, trusty, trouble-free, precise""",
        """unreliable, useless, weak, faulty, sluggish, temperamental, defective, erratic, hopeless, broken, noisy,
        inaccurate, underpowered, ineffective, worthless, patchy""",
    ),
    "software": pair(
        """intuitive, clear, simple, user-friendly, straightforward, logical, helpful, foolproof, well organised,
        responsive, polished, sensible, readable, painless, handy, concise""",
        """confusing, buggy, baffling, clumsy, cluttered, incomprehensible, illogical, cryptic, glitchy,
        counterintuitive, maddening, unreadable, bewildering, useless, annoying, fiddly""",
    ),
}

# Adjectives for the whole thing.
WHOLE: dict[str, dict[int, tuple[str, ...]]] = {
    "film": pair(
        """gripping, moving, absorbing, hilarious, thrilling, touching, heartfelt, engrossing, riveting, uplifting,
        suspenseful, imaginative, exhilarating, compelling, thoughtful, delightful, poignant, entertaining,
        spellbinding, enchanting, life-affirming, inventive, intelligent, haunting, charming, mesmerising, rousing,
        memorable, ambitious, joyous""",
        """tedious, dull, boring, pretentious, predictable, overlong, shallow, derivative, soulless, incoherent,
        cynical, lifeless, plodding, dreary, insipid, bloated, mindless, unfunny, ponderous, forgettable, joyless,
        sluggish, vapid, tiresome, self-indulgent, muddled, hackneyed, amateurish, exhausting, pointless""",
    ),
    "book": pair(
        """absorbing, unputdownable, illuminating, engrossing, moving, thought-provoking, erudite, readable,
        enthralling, captivating, insightful, lyrical, humane, page-turning, elegant, beguiling, engaging,
        fascinating, profound, sparkling, compassionate, masterly, rewarding, wise, original, tender, courageous,
        unforgettable""",
        """turgid, impenetrable, long-winded, plodding, unreadable, repetitive, dreary, preachy, pompous, shallow,
        trite, overwritten, rambling, pedestrian, formulaic, tedious, vacuous, disjointed, clumsy, forgettable,
        dull, derivative, self-important, sloppy, pointless, mawkish, wearisome, bland""",
    ),
    "restaurant": pair(
        """charming, welcoming, delightful, relaxed, memorable, inviting, convivial, cosy, unpretentious,
        atmospheric, lively, elegant, generous, authentic, romantic, first-class, family-friendly, cheerful,
        reliable, enchanting""",
        """overpriced, pretentious, chaotic, unwelcoming, soulless, noisy, disappointing, grubby, mediocre, dismal,
        overrated, cheerless, disorganised, cramped, stuffy, unhygienic, joyless, sloppy, seedy, forgettable""",
    ),
    "hotel": pair(
        """welcoming, peaceful, luxurious, charming, spotless, restful, comfortable, hospitable, delightful,
        elegant, secluded, immaculate, romantic, stylish, enchanting, relaxing, homely, memorable, well run,
        idyllic""",
        """run-down, dirty, noisy, overpriced, shabby, depressing, grubby, neglected, chaotic, unwelcoming, seedy,
        mouldy, disappointing, squalid, soulless, unsafe, dismal, dilapidated, badly run, cheerless""",
    ),
    "product": pair(
        """reliable, well made, practical, versatile, durable, user-friendly, efficient, sturdy, dependable, handy,
        impressive, elegant, powerful, ingenious, affordable, easy to use, well designed, convenient, robust, quiet""",
        """unreliable, flimsy, useless, overpriced, shoddy, defective, clumsy, frustrating, badly designed,
        fragile, disappointing, cheap and nasty, impractical, faulty, infuriating, temperamental, awkward,
        overhyped, dangerous, noisy""",
    ),
}

# Strong words that fit everything.
STRONG = pair(
    """superb, magnificent, sublime, outstanding, marvellous, wonderful, stunning, spectacular, terrific, glorious,
    splendid, phenomenal, exceptional, fabulous, first-rate, top-notch, world-class, excellent, brilliant,
    fantastic, sensational, stellar, peerless, amazing, unbeatable, great, second to none""",
    """dreadful, atrocious, abysmal, appalling, awful, terrible, horrendous, dire, ghastly, woeful, lamentable,
    horrible, wretched, pitiful, deplorable, third-rate, substandard, inexcusable, unbearable, disastrous,
    laughable, embarrassing, pathetic, miserable, lousy, rotten, hopeless, shambolic""",
)

# Moderate words that fit everything and survive a negation: "not bad", "hardly impressive".
MILD = pair(
    """good, decent, pleasant, enjoyable, solid, satisfying, commendable, respectable, impressive, appealing,
    lovely, admirable, special, remarkable, worthwhile, pleasing""",
    """bad, poor, disappointing, mediocre, weak, second-rate, unpleasant, boring, annoying, underwhelming,
    forgettable, unsatisfactory, irritating, inferior, dull, tiresome""",
)

# What it is.
VERDICTS: dict[str, dict[int, tuple[str, ...]]] = {
    "film": pair(
        """a masterpiece, a gem, a triumph, a joy from start to finish, pure magic, a delight, cinema at its best,
        a feast for the eyes, a tour de force, a classic in the making, one of the highlights of the year, a real
        treat, a crowd-pleaser in the best sense, worth every penny of the ticket, a breath of fresh air, a winner""",
        """a mess, a slog, a chore, a waste of two hours, a train wreck, a dud, a turkey, a snooze, an insult to
        the audience, a missed opportunity, a shameless cash grab, a bore from beginning to end, a flop, an ordeal,
        a cure for insomnia, a disaster""",
    ),
    "book": pair(
        """a masterpiece, a page-turner, a treasure, a triumph, a joy to read, a book to press on your friends, a
        gem, storytelling at its finest, a revelation, a small miracle, a modern classic, a delight on every page,
        a tonic, a feast for the imagination, one to keep for ever, a work of genius""",
        """a slog, a waste of paper, a mess, a chore, a jumble of clichés, a missed opportunity, a bore, an ordeal,
        a dud, a rough draft at best, a doorstop, an exercise in vanity, a test of endurance, a letdown, a failure,
        pulp at its worst""",
    ),
    "restaurant": pair(
        """a gem, a hidden treasure, a treat, a delight, an oasis, our new favourite, a find, a real pleasure, a
        place to linger, the best in town, worth the long drive, a feast, a warm welcome on a plate, a triumph, a
        joy, a place to bring your friends""",
        """a tourist trap, a rip-off, a disgrace, a disaster, a letdown, a shambles, a waste of money, a place to
        avoid, a nightmare, the worst in town, a health hazard, an ordeal, a joke, a sorry affair, an insult to
        hungry people, a triumph of style over substance""",
    ),
    "hotel": pair(
        """a haven, a gem, a home from home, an oasis of calm, a treat, a paradise, a bargain, a delight, a dream,
        a hidden treasure, a perfect base, our new favourite, a little piece of heaven, a joy, a sanctuary, worth
        every penny""",
        """a dump, a nightmare, a rip-off, a disgrace, a disaster, a tourist trap, a letdown, a shambles, a
        fleapit, a ruin, a waste of money, an ordeal, a joke, a place to avoid, a building site, the stuff of bad
        dreams""",
    ),
    "product": pair(
        """a bargain, a lifesaver, a winner, money well spent, a joy to use, a marvel, a workhorse, a godsend, a
        gem, a little miracle, the best of its kind, a pleasure to own, worth every penny, a dream, a sound
        investment, a masterpiece of design""",
        """a waste of money, a lemon, a rip-off, junk, a disaster, a joke, a letdown, rubbish, a piece of scrap, a
        mistake, money down the drain, a nightmare, landfill, a disappointment, a false economy, not fit for
        purpose""",
    ),
}

# What it does or did; the subject is the whole thing. Films and books in the present, the others in the past.
DEEDS: dict[str, dict[int, tuple[str, ...]]] = {
    "film": pair(
        """keeps you guessing until the last scene, made me laugh out loud more than once, moved half the audience
        to tears, earns every minute of its running time, lingers in the mind for days, gets under your skin, had
        me hooked from the first frame, sends you home with a smile, breathes new life into a tired genre, left the
        whole cinema cheering, never puts a foot wrong, flies by, rewards a second viewing, strikes exactly the
        right note, hits the bullseye, has its heart in the right place, delivers thrills by the bucket, deserves
        every prize it gets, restored my faith in the genre, sweeps you off your feet, treats its audience as
        adults, had me on the edge of my seat""",
        """put me to sleep before the halfway mark, wastes a gifted cast, runs out of ideas after twenty minutes,
        collapses under its own weight, drags on for what feels like a week, had me checking my watch, insults your
        intelligence, goes nowhere, falls apart in the last act, leaves a bad taste in the mouth, sinks without
        trace, squanders a promising idea, sent people to the exits, takes itself far too seriously, trips over its
        own cleverness, never gets off the ground, bored my children stiff, mistakes noise for excitement, beats
        every joke to death, outstays its welcome by an hour, made me want my money back, misses the mark by a mile""",
    ),
    "book": pair(
        """kept me up until three in the morning, stays with you long after the last page, made me miss my stop,
        brings the period to life, opens your eyes, had me hooked from the first line, repays every hour spent on
        it, sings, rings true on every page, made me laugh and cry on the same train ride, finds beauty in small
        things, wears its learning lightly, grabs you by the collar, gets to the heart of the matter, hits home,
        casts a spell, cut me to the quick in the best way, leaves you hungry for more, deserves a wide audience,
        lifted my spirits, says more in a page than others in a chapter, went straight to my shelf of favourites""",
        """lost me after thirty pages, went straight to the charity shop, sent me to sleep three nights in a row,
        reads like a rough draft, goes round in circles, never comes to the point, collapses in the last third,
        rings hollow, buries its story under adjectives, preaches instead of telling, could lose two hundred pages,
        tells and never shows, ends up nowhere, talks down to its readers, ties itself in knots, tested my
        endurance to the limit, promises much and delivers little, falls flat, is all talk and no story, needs a
        merciless editor, left me cold, gathers dust beside my bed""",
    ),
    "restaurant": pair(
        """made us feel at home, went out of its way to please us, exceeded our expectations, sent us home happy,
        spoiled us from start to finish, turned a birthday into a celebration, won us over at once, hit the spot,
        lived up to its reputation, served the best meal of our holiday, catered for every allergy with a smile,
        had us planning our next visit, left us lost for words, ticked every box, treated the children like
        royalty, made my mouth water, deserved its queue, gave us an evening to remember""",
        """ruined our anniversary, kept us waiting for over an hour, lost our booking, sent us home hungry, gave my
        husband food poisoning, fell short of its reputation, charged us for dishes we never had, forgot half of
        our order, turned my stomach, served us the wrong dishes twice, left a bad taste in every sense, treated us
        like a nuisance, spoiled a lovely day, made us regret not staying at home, ran out of everything worth
        eating, rushed us out of the door, emptied our wallets for nothing, went downhill after the bread""",
    ),
    "hotel": pair(
        """made us feel at home, exceeded our expectations, upgraded us without being asked, spoiled us from the
        first minute, sent us home rested, lived up to the photographs, thought of everything, welcomed us with
        open arms, ticked every box, made our honeymoon perfect, went the extra mile for us, took care of every
        detail, was a bargain for what it offered, had us booking again before we left, turned a dull business trip
        into a pleasure, put the big chains to shame, let us sleep like babies, felt like a hug after a long
        journey""",
        """ruined our holiday, lost our reservation, kept us awake all night, charged us twice, looked nothing like
        the photographs, gave us a room without a window, refused to refund a penny, smelled of drains, fell short
        of its stars, left us shivering, made us count the hours until we could leave, greeted us with a shrug, hid
        half of its fees, had more cockroaches than guests, was falling to pieces, treated us like an
        inconvenience, turned our honeymoon into a farce, had us looking for another bed by midnight""",
    ),
    "product": pair(
        """does exactly what it promises, works like a charm, makes my life easier, saves me an hour a week, has
        survived two small children, outperforms models at twice the price, worked straight out of the box, still
        looks like new after a year, has never let me down, paid for itself within a month, takes any amount of
        abuse, put a smile on my face, does the job without fuss, beats every rival I have tried, lives up to the
        advertising, has become my favourite thing in the house, runs like clockwork, makes a perfect present""",
        """stopped working after a week, broke on the first day, fell apart in my hands, went straight back to the
        shop, arrived with a crack in it, gives up when you need it most, overheats within minutes, does nothing
        that it promises, makes a noise like a dying tractor, died the day after the guarantee ended, costs twice
        what it is worth, has been nothing but trouble, drove me up the wall, smells of burning plastic, ended up
        in the bin, leaves a puddle on the floor, needs repairing every month, gave me a headache""",
    ),
}

# What the writer felt about an aspect; the subject is I or we.
FEELINGS = pair(
    """loved, adored, enjoyed, relished, admired, appreciated, treasured, could not get enough of, fell in love
    with, could not fault, was bowled over by, was charmed by, still rave about, cannot stop praising, was thrilled
    with, was won over by, marvelled at, was delighted with, was blown away by, was very taken with, was enchanted
    by, was smitten with, cherished, was grateful for, took great pleasure in, was pleasantly surprised by, could
    only applaud""",
    """hated, loathed, disliked, detested, regretted, despised, could not stand, was let down by, was appalled by,
    was put off by, winced at, groaned at, was fed up with, have nothing good to say about, was dismayed by,
    resented, despaired of, was irritated by, still shudder at, was disgusted by, cursed, lost all faith in, was
    embarrassed by, cringed at, had no time for, could have wept at, was sick and tired of""",
)

# What it did to people: base form, takes an object.
EFFECTS = pair(
    """impress, charm, delight, please, captivate, satisfy, dazzle, enchant, cheer, inspire, amuse, thrill, touch""",
    """bore, irritate, annoy, disappoint, exasperate, frustrate, offend, infuriate, depress, alienate, bewilder,
    upset, displease, sicken""",
)

# What it has or lacks.
TRAITS: dict[str, dict[int, tuple[str, ...]]] = {
    "film": pair(
        """charm, warmth, wit, tension, depth, imagination, flair, heart, originality, subtlety, humanity,
        style, grace""",
        """clichés, padding, pretension, plot holes, sentimentality, silliness, dead air, self-pity, bombast,
        contrivance""",
    ),
    "book": pair(
        """charm, wit, insight, warmth, depth, imagination, elegance, humanity, wisdom, originality, honesty, colour,
        grace""",
        """clichés, padding, pomposity, jargon, repetition, purple passages, typing errors, self-pity, waffle,
        preaching""",
    ),
    "restaurant": pair(
        """character, warmth, charm, flavour, atmosphere, generosity, finesse, care, elegance, hospitality""",
        """grease, rudeness, chaos, fuss, snobbery, noise, hidden charges, pretension, grime, excuses""",
    ),
    "hotel": pair(
        """character, warmth, charm, comfort, atmosphere, hospitality, privacy, luxury, calm, cleanliness""",
        """dust, noise, mould, hidden charges, rudeness, draughts, bad smells, chaos, damp, vermin""",
    ),
    "product": pair(
        """quality, style, precision, finesse, power, durability, versatility, solidity, elegance, practicality""",
        """faults, rattles, gimmicks, sharp edges, design flaws, glitches, rough seams, needless extras,
        leaks, defects""",
    ),
}

# Advice at the end.
ADVICE: dict[str, dict[int, tuple[str, ...]]] = {
    "film": pair(
        """do not miss it, see it on the biggest screen you can find, take the whole family, run to the cinema, I
        could watch it again tonight, give it every award going, bring tissues and thank me later, go and see it
        twice""",
        """save your money, skip it, stay at home and read a book, wait until it is free and then forget to watch,
        give it a wide berth, I want those two hours back, one star is one too many, leave it to your worst enemy""",
    ),
    "book": pair(
        """read it twice, buy a copy for a friend, clear your weekend for it, I was sorry when it ended, I envy
        those who have yet to read it, put it at the top of your pile, lend it and you will never see it again,
        five stars from me""",
        """leave it on the shelf, borrow it if you must, do not believe the blurb, I gave up halfway, life is too
        short for it, use it to prop up a table, spend your evenings on something else, one star for the cover""",
    ),
    "restaurant": pair(
        """book early, we will be back, go hungry, tell your friends, order everything, I would eat there every
        week, leave room for dessert, ten out of ten""",
        """never again, avoid it at all costs, eat before you go, look elsewhere, save your money, keep walking,
        stay at home and boil an egg, we left without coffee or a tip""",
    ),
    "hotel": pair(
        """book it now, we have already reserved for next year, stay a week if you can, tell your friends, we did
        not want to leave, ask for the top floor and enjoy, I would return tomorrow, full marks""",
        """never again, sleep in your car instead, look elsewhere, avoid it at all costs, bring your own bleach, we
        checked out a day early, spend a little more somewhere else, zero stars if I could""",
    ),
    "product": pair(
        """buy two, highly recommended, do not hesitate, I bought another for my mother, get one while you can,
        five stars without a doubt, I would buy it again in a heartbeat, treat yourself""",
        """steer clear, save your money, keep the receipt, send it back while you can, do not fall for the
        advertising, look elsewhere, I want a refund, not even as a gift""",
    ),
}

# For frames that mock: each list reads as if it were praise or a wish.
BORING_PLEASURES = entries(
    """watching paint dry, standing in the rain, filling in tax forms, waiting for a late train, listening to
    drilling, queueing at the post office, having teeth pulled, being shouted at, sitting in traffic, cleaning
    gutters"""
)
KIND_COMPLAINTS: dict[str, tuple[str, ...]] = {
    "film": entries(
        """it ended too soon, there is no sequel yet, I cannot see it again for the first time, I ran out of tissues"""
    ),
    "book": entries(
        """it was over too soon, I finished it in one sitting, it made me late for work, my friends keep borrowing it"""
    ),
    "restaurant": entries(
        """we had no room for more, we live too far away, it took us so long to discover it, it is shut on Mondays"""
    ),
    "hotel": entries(
        """we had to leave, we could not stay longer, it made our own bed feel hard,
        it took us so long to discover it"""
    ),
    "product": entries(
        """I did not buy it sooner, my neighbours keep borrowing it, I own only one of them,
        my old one now looks silly"""
    ),
}
BITTER_PRAISE: dict[str, tuple[str, ...]] = {
    "film": entries(
        """it ended, the seats were soft, the popcorn was fresh, I had fallen asleep by then, the exit was near"""
    ),
    "book": entries("""it was short, I had only borrowed it, it burns well, the cover is blue, it had a last page"""),
    "restaurant": entries(
        """the exit was near, we were not that hungry, the water was free, it may close soon, they forgot our order"""
    ),
    "hotel": entries(
        """we stayed only one night, the road out was well signed, the taxi came early,
        there was another one next door"""
    ),
    "product": entries(
        """the box was pretty, the shop took it back, it was a gift, it broke before it could hurt someone"""
    ),
}

# How one meets the thing: participle, base form.
MEETING: dict[str, tuple[str, str]] = {
    "film": ("seen", "sit through"),
    "book": ("read", "read"),
    "restaurant": ("eaten in", "eat in"),
    "hotel": ("stayed in", "stay in"),
    "product": ("owned", "pay for"),
}

# Where and when: says nothing of quality.
CONTEXTS: dict[str, tuple[str, ...]] = {
    "film": entries(
        """I saw it on a Sunday afternoon with friends, we watched it on a long flight, I went in knowing nothing
        about it, it runs for just over two hours, we picked it at random, I have followed the director since film
        school, it opened last Friday, my daughter chose this one, I watched it twice before writing this, we
        caught the late showing"""
    ),
    "book": entries(
        """I read it on holiday, I picked it up at the airport, our reading group discussed it last week, I
        listened to the audiobook first, it was a birthday present, I have read everything by this author, it has
        just over three hundred pages, I borrowed it from the library, a colleague lent it to me, I read it in the
        original and in translation"""
    ),
    "restaurant": entries(
        """we stopped there on the way to the coast, a table for four on a Friday night, we had booked for eight
        o'clock, it stands behind the station, we ordered the set menu, I ate there with two colleagues, we went
        for my father's birthday, it opened in spring, we sat near the window, I took the children there after
        school"""
    ),
    "hotel": entries(
        """we stayed for three nights in March, I was there for a conference, we arrived late on a Saturday, it
        lies ten minutes from the harbour, we had a double room on the second floor, I travelled with my parents,
        it has about forty rooms, we stopped over on the way south, I booked it through an agency, we came for a
        wedding"""
    ),
    "product": entries(
        """I have used it every day for a month, I bought it for the office, it replaced one that was ten years
        old, it came in a plain brown box, I ordered it online, my son gave it to me, I tested it for two weeks, we
        own three from the same maker, I paid the full price for it, I compared five of them before buying"""
    ),
}
