"""Which words may stand for which: a question says "closed", the post says "shut to traffic". And which exclude each
other: what is open is not closed, the women's final is not the men's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gigafactory.chat.stems import stem
from gigafactory.chat.tokens import Token, tokens
from gigafactory.feed.words import words

# concept: the words and phrases that may say it; a word may stand in several. An indented line goes on.
FAMILY_LINES = """
close: close, shut, shutdown, shutter, shut down, seal off, cordon off, off limits, barricade, block off, blocked, no
  access, out of service, suspend, gesperrt, sperrung, geschlossen, schliesst, cerrado, cerrada, cierre, cierra,
  cerrados, ferme, fermee, fermeture, fermes, chiuso, chiusa, chiusura, fechado, fechada, fechamento, gesloten,
  zamkniety, stangd, 閉鎖, 通行止め, 封鎖, 閉館, 休業, 关闭, 關閉, 封闭, 폐쇄, 통제, out of use, out of action, out of
  bounds, cannot use, can't use, not use, barred, bar, impassable, fenced off, taped off, sealed, no traffic,
  no entry, no way through, no crossing,
  not passable, stay shut, keep shut, shut off, locked, lock, off-limits, unusable, no through
open: open, reopen, back open, unlock, inaugurate, accessible, open again, reopening, in service again, opens its
  doors, geoffnet, offnet, eroffnet, eroffnung, abierto, abierta, abre, reabre, apertura, ouvert, ouverte, ouvre,
  rouvre, ouverture, aperto, aperta, apre, aberto, aberta, geopend, 再開, 開通, 開業, 開館, 开放, 開放, 重开, 재개,
  use again, usable, passable, in use, back in use, cross, cross again, drive, walk, traffic return, traffic
  again, get across, lifted, lift, reopened, use, unblock, clear, back in action, welcome back, resume traffic, return
  to traffic, available again, free
restore: restore, resolve, fix, recover, repair, mitigate, back online, back up, back to normal, up again, online
  again, working again, return to service, service is back, restoration, resume, normal service, be back, back by,
  back at, back on, is back, are back, come back, comes back, coming back, back in, working, function, stable, running
  again, return, rectify, sort, sorted, patched, normal
outage: outage, failure, lost access, lose access, no access, blackout,
  power cut, offline, disruption, downtime, went down, is down, are down, was down, were down,
  go down, knocked out, without power, in the dark, incident, unavailable, interruption, no power, no service, lost
  power, ausgefallen, ausfall, storung, stoerung, stromausfall, gestort, caida, caido, apagon, corte, sin servicio,
  sin luz, panne, coupure, en panne, hors service, guasto, fora do ar, queda, storing, 障害, 停電, 不具合, 中断, 故障,
  停电, 宕机, 장애, 정전, not working, no longer works, out of order, dark, cut off, unreachable, stopped working,
  fails, failing, collapse, collapsed, broken, breakdown, trouble, glitch, dead, crash, crashed, no signal, no
  internet, without service, without water, down since
fault: cause, because, reason, due, trigger, blame, root, fault, culprit, stem from, behind, responsible, came from,
  comes from, brought on, brought about, started by, sparked, spark, set off by, put down to, origin, root cause,
  traced to, trace
launch: launch, liftoff, lift off, take off, blast off, go live, unveil, debut, release, introduce, roll out, rollout,
  come out, ship, flight, fly, premiere, arrive, on sale, available, startet, gestartet, start, lanza, lanzamiento,
  despega, despegue, lance, lancement, decolle, lancio, lancia, lancamento, 打ち上げ, 発射, 発売, 发射, 发布, 발사,
  출시, t-0, leave the pad, leave the ground, off the ground, heads up, on its way, decollage, prevu, lifts off,
  goes up, go up, abheben, abflug, hebt
  ab, leaves the pad, blast, soar, head for orbit, heads for orbit, head to space, into orbit, to orbit, into space,
  ignition, t-zero, t minus, launch window, set off, sent up, fire, fires, leave earth, rise from, goes to space,
  shoot, countdown, climb, depart
scrub: scrub, abort, call off, stand down, hold, cancel
delay: delay, postpone, push back, slip, reschedule, move, defer, put off, late, hold up, behind schedule, new date,
  now set for, pushed, shift, verschoben, verspatet, verzogert, aplazado, retrasado, retraso, retrasa, reporte,
  retarde, rinviato, adiado, uitgesteld, 延期, 遅延, 推迟, 연기, slides, nudged, not before, no earlier than, later
  than planned, pushed to, moved to, slip to, slips to, put back, new time, new slot, retimed, wait, waits, hold off
cancel: cancel, scrap, call off, abandon, drop, axe, annul, shelve, off, abgesagt, cancelado, cancelada, suspendido,
  annule, annulee, annullato, 中止, 取消, 취소, not going ahead, will not go ahead, won't happen, will not happen, off
  the table, pulled the plug, ditched, ditch
schedule: schedule, plan, set, due, expect, slate, target, date, time, begin, start, take place, kick off, planned,
  timetable
begin: begin, start, kick off, get underway, commence, open, under way, launch, onset
end: end, finish, conclude, wrap up, over, stop, halt, cease, final whistle, close, last, complete
win: win, beat, defeat, victory, victor, take, clinch, triumph, claim, edge, seal, thrash, rout, champion, overcome,
  top, winner, prevail, title, gold, crown, knock out, down, see off, come out on top, sink, stun, sweep, gewinnt,
  gewonnen, sieg, siegt, gana, gano, ganador, gagne, remporte, vainqueur, vince, vinto, vence, venceu, wint, 優勝,
  勝利, 勝ち, 获胜, 夺冠, 우승, came out ahead, come out ahead, got past, edge past, overcame, saw off, ease past,
  hammer, crush, through to, progress
lose: lose, defeat, fall to, beat, go down to, out, relegate, runner up, losing
draw: draw, tie, level, stalemate, all square, share the points
score: score, result, final, full time, ft, half time, ht, at the whistle, tally, scoreline, whistle, ergebnis,
  endstand, resultado, marcador, resultat, termine, risultato, finisce, 試合終了, スコア, 比分, 结果, 결과, full-time,
  outcome, score line, finished, ended, ends, finish, end of, it finished, final result, closing score
goal: goal, score, net, header, penalty, strike, scorer, scored, slot, find the net, on target, equaliser, winner
play: play, face, meet, match, game, versus, vs, v, against, take on, fixture, host, opponent, derby
match: match, game, fixture, final, tie, clash, derby, contest, meeting
vote: vote, ballot, poll, election, elect, referendum, motion, tally, approve, reject, pass, decision, verdict,
  majority, in favour, against, measure, ayes, yes, no, council, abstimmung, stimmen, abgestimmt, votacion, votos,
  vota, votan, voto, votes, scrutin, voix, votazione, voti, votacao, stemming, 投票, 可決, 否決, 表决, 표결, by a vote
  of, came down, split, margin, count, breakdown, division, show of hands, noes, nays, yeas, chamber, ballots, voting,
  raised hands, for and against, in favor, favour, assembly
pass: pass, approve, adopt, back, carry, endorse, agree, vote for, go through, vote in favour, clear, green light,
  accept, ratify, in favour, angenommen, beschlossen, billigt, aprueba, aprobado, aprobada, adopte, approuve,
  approvato, aprovado, aangenomen, 可決, 承認, 通过, 가결, went through, sail through, squeak through, gets the nod,
  say yes to, nod, wave through, waved through, rubber stamp, ok'd, okayed, say yes, said yes, gives the go-ahead,
  go-ahead, backing, made it through, got through, get through, in favor, sign off, signed off
reject: reject, fail, vote down, defeat, block, turn down, refuse, veto, throw out, against, deny, kill, abgelehnt,
  rechaza, rechazado, rejette, rejete, respinto, rejeitado, 否決, 否决, 부결, say no, said no, thrown out, shot down,
  knocked back, vote against, turned away
fare: fare, ticket, pass, toll, season ticket
turnout: turnout, participation, turn out, voter, cast, voted
appoint: appoint, name, hire, choose, pick, select, elect, promote, install, tap, nominate, take over, succeed,
  replace, become, take charge, take the helm, take up the post, step into, get the job, sworn in, takes office,
  appointee, lands, recruited, designate, succession, chosen, ernannt, neuer, neue, nombrado, nombrada, nombra, nuevo,
  nueva, nomme, nommee, nouveau, nouvelle, nominato, nominata, nomeado, nomeada, benoemd, 就任, 任命, 选为, 当选,
  當選, 当選, 임명, landed, picked, takes the reins, reins, helm, hands over to, promoted to, is now, named as, chosen
  as, new chair, new head, new chief, new boss, new ceo, new director, new coach, new managing, new manager, new
  president, new finance, new mayor, new captain, new leader, new minister, new secretary, new editor, new principal,
  new commissioner, new job, will lead, will run, starts as, start as, started as, begins as, a la tete, an die
  spitze, al frente, step in, steps in, stepping in, fill in, fills in, stand in, stands in, in charge for now, gets
  the, get the, lands the, goes to, go to, given the, handed, hand, fill, fills, filled, occupy, take the post, takes
  the post, takes charge, take up, takes up, picks up, secured, won the job, contrata, embauche, guida, dirige,
  leitet, moves up to, brings in, bring in, the choice, choice, moves into, move
  into, run, runs, lead, leads, steer, man, responsible, sits, boss, elevated, elevate, crowned, welcome, welcomes,
  signing, anoint, at the helm, to the helm
resign: resign, step down, quit, leave, depart, stand down, exit, step aside, go, retire, departure, steps back, hand
  in notice, bow out, tritt zuruck, rucktritt, dimite, dimision, dimitio, demissionne, demission, si dimette,
  dimissioni, demite, renuncia, treedt af, 辞任, 退任, 辞职, 사임, leaving, out as, on the way out, out the door, part
  company, walk away, walks, is out, out at, takes over from, took over from, replaces, succeeds, steps aside, give
  up, gives up, throw in, threw in, vacate, vacates, bows out, hang up, relinquish, has left, has gone, walked out,
  call it a day, pack it in, end of the road, goodbye, farewell, goes, is leaving, no longer
dismiss: dismiss, fire, sack, oust, remove, let go, part ways, lay off, layoff, cut, redundancy, job cuts
head: head, chief, boss, leader, director, ceo, president, chair, chairman, chairwoman, chairperson, manager,
  executive, principal, commissioner, top job, lead, run, captain, governor, chef, chefin, leiter, leiterin,
  vorsitzende, vorsitzender, jefe, jefa, directora, presidente, presidenta, directeur, directrice, patron, capo,
  direttore, diretor, 社長, 会長, 長官, 局长, 主席, top, managing director, md, top post, top role, in charge, acting,
  leadership, reins, helm
coach: coach, manager, trainer, head coach, in charge, boss
mayor: mayor, city hall, mayoral
minister: minister, secretary, cabinet, ministry
person: person, people, resident, passenger, visitor, attendee, worker, employee, staff, patient, student, spectator,
  fan, protester, man, woman, guest, participant, customer, household, home, crowd, member, commuter, individual,
  attendance, runner, traveller, tourist, personen, menschen, leute, personas, gente, personnes, gens, persone,
  pessoas, mensen, 人が, 名が, 人の, 万人, soul, folk, folks, evacuee, inhabitant
attend: attend, attendance, crowd, turn out, turnout, show up, spectator, audience, draw, gather, visitor, come,
  present, people, fan, sell out, packed, capacity, guest, marcher, protester, join, march, participate, take part,
  turn up, pack, fill, in the stands, through the gates, gate, zuschauer, besucher, asistentes, espectadores,
  spectateurs, visiteurs, spettatori, 観客, 来場者, 观众, 관객, on the streets, marched, took to the streets, turned
  out, in the crowd, in front of, watched, watch, spectators, ppl, gate of, saw, seen by, came, in the ground, at the
  ground, inside, in the stadium, filled, ticket holders, through the turnstiles, crowd of, seats, cheered, visited,
  visit, guests,
  people came, drawn, drew
injure: injure, hurt, wound, hospital, casualty, injury, treat, taken to hospital, stretcher, ambulance, verletzt,
  verletzte, heridos, herido, heridas, blesses, blesse, feriti, ferito, feridos, gewond, 負傷, けが, 怪我, 重傷, 受伤,
  부상, casualties, hospitalised, hospitalized, in hospital, need treatment, needed treatment, treated, bruised,
  victims, suffer injuries, with injuries, harmed, harm, hospitals, medical care, patched up
die: die, dead, kill, death, fatal, fatality, toll, lose their lives, death toll, victim, pass away, claim lives,
  deadly, tote, getotet, gestorben, muertos, muerto, fallecidos, morts, mort, tues, decedes, morti, mortos, doden,
  死亡, 死者, 遇难, 사망
miss: miss, missing, unaccounted, unaccounted for, vanish, vanished, still out there, no trace, search, searching,
  look for, looking for
rescue: rescue, save, pull from, evacuate, free, airlift, winch, bring to safety, brought to safety, safe, safety,
  pluck, plucked, pulled out, pull out, recover, recovered, freed, haul, hauled, lift out, lifted out, found alive,
  alive, survive, survivors, survivor, picked up, pick up, bring ashore, brought ashore, ashore, saving, extricate,
  dig out, dug out, carried out, taken off, out of danger, gerettet, rescatados, rescates, secourus, sauves, salvati,
  resgatados, 救助, 救出, 获救, 구조
evacuate: evacuate, evacuation, clear, leave, displace, shelter, flee, out of their homes, ordered out, evakuiert,
  evacuados, evacuadas, evacues, evacuees, evacuati, geevacueerd, 避難, 疏散, 撤离, 대피, had to leave, have to leave,
  moved out, sent out, got out, cleared out, brought out, told to go, told to leave, out of the building, moved to
  safety, leave home, leave their homes, bring out, get out, cleared, escape, escaped, fled, taken out, led out, led
  to safety, move out, sheltered
arrest: arrest, detain, custody, charge, police hold, held, apprehend, suspect
fire: fire, blaze, burn, flame, inferno, smoke, wildfire, alight, ablaze, contain, containment, feuer, brand, brennt,
  incendio, fuego, incendie, feu, incendi, 火災, 火事, 火灾, 화재, burning, in flames, up in flames, torched, gutted,
  smouldering, brandt, arde, brule
flood: flood, water, inundate, overflow, submerge, level, river, swamp, under water, burst
storm: storm, hurricane, cyclone, typhoon, gale, wind, tempest, weather, gust
quake: earthquake, quake, tremor, aftershock, seismic, tremblor, temblor, erdbeben, beben, terremoto, sismo, seisme,
  tremblement, 地震, 지진, shook, rattle, rattled, jolt, jolted, rumble, ground shook, shaking, tremors, shock
magnitude: magnitude, strong, strength, size, measure, richter, power, starke, magnitud, マグニチュード, 震级, 震級,
  규모, register, registered, measured, scale, reach, powerful, intensity, big, reading, severity, rated, at, clock
crash: crash, collide, collision, accident, wreck, derail, derailment, pile up, smash, hit, incident
attack: attack, strike, bomb, shoot, assault, raid
damage: damage, destroy, wreck, ruin, loss, hit, collapse, cost
price: price, cost, charge, fee, fare, ticket, priced, sell for, pay, starts at, retail, worth, rate, toll, buy,
  admission, go for, sticker, tag, entry, euro, dollar, pound, preis, kostet, precio, cuesta, prix, coute, prezzo,
  costa, preco, custa, prijs, 価格, 値段, 円, 价格, 가격, valued, for sale, set you back, shell out, sold for,
  valuation, pays, paid, paying, costs, spend, hand over, fork out, part with, put up, bid, offer, changes hands for,
  change hands, for a price, buyer pays, deal worth, valued at, values, price tag, sum, set back
money: money, cost, budget, fund, pay, spend, price, raise, worth, value, deal, sum, amount, invest, total, fee, bill,
  revenue, profit, fine, grant, funding, investment, award, bid, financing, backing, secure, round, receive, donation,
  donate, collect
raise: raise, collect, secure, bring in, fund, donate, gather, round, funding, land, close, net
buy: buy, acquire, purchase, takeover, take over, merge, acquisition, snap up, bid, deal, buyer, buyout, swallow, take
  control, takes control, get control, gobble up, pick up, land, new owner, grab, bought out, absorb, own, scoop up,
  win, secure, acquiring
sell: sell, sale, sold, divest, auction, fetch, hammer
increase: increase, rise, grow, up, climb, jump, gain, hike, raise, surge, higher, more, soar
decrease: decrease, fall, drop, decline, down, cut, slump, lower, reduce, shrink, dip, slide, fewer, less
announce: announce, say, confirm, reveal, declare, report, unveil, tell, state, statement, publish, disclose, note,
  post
confirm: confirm, official, verify, announce, acknowledge
deny: deny, refute, dismiss, reject, false, untrue, not true, no truth
say: say, tell, state, write, post, tweet, comment, claim, announce, remark, quote, mention, declare, argue, warn,
  note, add, respond, statement, according, think, explain, words, speak, spoken, speech, comments, quoted, said
decide: decide, rule, choose, determine, decision, verdict, ruling, judgment, vote
sign: sign, ink, transfer, join, deal, agree, contract, recruit, snap up, seal, move
agree: agree, deal, agreement, accord, pact, settle, truce, contract, sign, treaty
strike: strike, walkout, walk out, industrial action, stoppage, picket, streik, streiken, huelga, greve, sciopero,
  staking, ストライキ, スト, 罢工, 파업, down tools, picketing, walk off, walked off, downed tools, lay down, laid
  down, stop work, stopped work, on the picket line, picket line, out on strike, refuse to work, stay away, off the
  job, stay home, join the strike, joined the strike, took part, taking part, industrial dispute
protest: protest, demonstration, rally, march, demonstrate, protester, demo, sit in
record: record, high, best, fastest, most, largest, ever
finish: finish, place, rank, position, complete, come, end, cross the line, time, clock, podium
arrive: arrive, reach, land, get to, dock, touch down, arrival, pull in, come in
depart: depart, leave, set off, departure, take off, sail
land: land, touch down, splashdown, landing, touchdown, arrive
carry: carry, payload, board, on board, aboard, transport, haul, lift, bring
location: location, place, venue, site, where, held, host, spot, based, headquarters, take place, happen, town, city,
  scene, setting, stage, ground, stadium, pad, spaceport, launch site
hold: hold, take place, host, stage, happen, run, occur, venue, held
move: move, relocate, shift, transfer, switch, new venue, new home
find: find, discover, detect, spot, locate, uncover, recover, turn up, identify, unearth, dig up, dug up, came to
  light, come to light, turned up, excavate, excavated, buried, hoard, brought to light, surfaced, emerged, come
  across, came across, lay, stumbled, gefunden, encontrado, hallazgo, hallados, decouvert, trouve, scoperto,
  descoberto, 発見, 见つか, 发现, 발견
build: build, construct, develop, erect, construction, work, put up
name: name, call, title, dub, known as, nickname, christen, titled
remark: remark, said, say, speak, words, quote, comment, statement, told, speech, tell
fine: fine, fined, penalty, pay, court, penalise, sanction, order to pay, ordered to pay, must pay, has to pay, have
  to pay, sum, fines, damages, compensation, bill, punish, punished, hit with, slapped with, court orders
judge: judge, ruled, court, magistrate, justice
new: new, next, latest, fresh, newly, incoming, upcoming
duration: duration, last, long, minute, hour, day, for, take, length, week, month
length: length, long, km, kilometre, mile, metre, stretch, distance, run
speed: speed, fast, kmh, mph, km/h, pace
temperature: temperature, hot, cold, warm, degree, celsius, fahrenheit, heat, mercury, high, low
height: height, tall, high, metre, foot, level, stand, crest
level: level, height, stand, metre, depth, gauge, crest, peak
weight: weight, heavy, weigh, kg, kilogram, tonne, ton
distance: distance, far, km, kilometre, mile, away, metre
share: share, percent, percentage, proportion, %, rate, portion, fraction
customer: customer, home, household, user, subscriber, people, resident, client, property, business, account,
  connection, premise, kunden, kunde, nutzer, haushalte, clientes, cliente, usuarios, usuario, hogares, clients,
  abonnes, utilisateurs, foyers, utenti, clienti, klanten, gebruikers, 利用者, 世帯, 顧客, ユーザー, 用户, 客户, 고객
affect: affect, hit, impact, without, lose, experience, suffer, disrupt, leave, knock, betroffen, afectados,
  afectadas, afectado, afecta, touches, concernes, touche, colpiti, afetados, getroffen, 影響, 影响, 受影响, sin,
  without service, cut off, reporting problems, in trouble, no longer reach, lost, losing, experiencing, reports of,
  reported problems, unable, struggling, suffering, left without, in the dark, offline, stranded, locked out, knock
  out, take down
region: region, area, city, town, district, state, county, neighbourhood, zone, street, part
lane: lane, road, street, bridge, tunnel, carriageway, highway, motorway, route, junction, crossing
detour: detour, divert, diversion, reroute, alternative route, umleitung, desvio, deviation
train: train, rail, railway, service, line, metro, subway, tram, track
bus: bus, coach, shuttle, route
flight: flight, plane, aircraft, jet, airliner, airline, landing, take off
ship: ship, vessel, boat, ferry, tanker, cargo
rocket: rocket, booster, launcher, vehicle, mission, spacecraft, capsule, payload, satellite
car: car, vehicle, automobile
company: company, firm, business, corporation, maker, startup, group, developer, manufacturer
team: team, side, club, squad, eleven
school: school, college, university, campus, academy, pupil
hospital: hospital, clinic, medical, ward, health centre
police: police, officer, cop, force, sheriff, constable, authority
government: government, state, authority, council, administration, official, ministry, parliament, senate, congress
law: law, bill, act, measure, legislation, rule, ban, ordinance, proposal, motion, bylaw, regulation, plan
ban: ban, prohibit, forbid, bar, outlaw, block, verbot, verboten, prohibicion, prohibido, interdit, interdiction,
  vietato, divieto, 禁止, 금지
court: court, judge, trial, ruling, verdict, jury, case, sentence, lawsuit, appeal
sentence: sentence, jail, prison, year, term, convict, guilty, found guilty, fined, fine, penalty, court, ruling,
  ruled, convicted, liable, verdict, punished, condemned, conviction, found liable, guilty verdict, tribunal, bench,
  ruled against, broke the law
sick: sick, ill, illness, infect, case, disease, virus, outbreak, patient, infection
recall: recall, withdraw, pull, take back, return, ruckruf, ruft zuruck, retira, retirada, rappel, rappelle, richiamo,
  回収, リコール, 召回, 리콜, send back, stop using, taken back, called back, pull from, pulled from shelves, off the
  shelves, off the market, bring back, hand back, taken off, called in, warn, warning, unsafe, safety warning, asked
  back, pulled, pulling, ordered back, withdrawal, stop selling, off sale
product: product, device, phone, app, model, gadget, version, item
feature: feature, function, support, include, add, come with, new, offer
software: software, app, update, version, release, patch, build
site: site, website, page, portal, platform, service, server, app
show: show, concert, gig, performance, play, tour, set
festival: festival, fair, event, celebration, carnival, party, parade
exhibition: exhibition, exhibit, show, display, gallery, museum
film: film, movie, picture, premiere, screening
book: book, novel, title, publish
album: album, record, single, song, track, release
prize: prize, go, deserved, award, medal, trophy, honour, win, winner, cup, preis, premio, prix, 賞, 奖, collect, bag,
  take home, took home, go to, goes to, went to, recipient, laureate, honoured, honored, picked up, receive, got, get,
  earn, honor, accolade, bestowed, presented, collects, receives, received, picks up, lifts, claims, claimed, scoops,
  scooped, walks away, carries off, takes the, crowned, recognised, went, honoured with
headline: headline, headliner, main act, top act, lead act, star act, top of the bill, top the bill, tops the bill,
  closing act, ends with a show, show of, close the show, main attraction, biggest name, star, headlining, headlined,
  play, perform, lead, big
  name, on the main stage, main stage, on stage, lineup, line up, billed, bill, booked, performer, attraction, star
  turn, draw, closes, closing, top spot, marquee, lead the bill, leads the bill, top name, crowning, play the main,
  appear, appears, sing, sings, take the stage, takes the stage
buyer: buy, buyer, purchaser, acquirer, acquire, take over, takeover, purchase, own, new owner, snap up, bid, win
  control, swallow, merge, bought, kauft, compra, rachete, achete, acquista, 買収, 收购, 인수
worker: worker, staff, employee, nurse, driver, member, striker, people, teacher, crew, labour, workforce, union,
  arbeiter, trabajadores, ouvriers, travailleurs, lavoratori, 従業員, 工人, 職員, 노동자, employees, staffer,
  colleague, labourer, hand, hands, personnel, men and women
unit: unit, item, device, product, piece, model, stuck, geräte, unidades, appareils, pezzi, 台, 件
refund: refund, money back, get back, compensate, compensation, reimburse, voucher, back, returned, rebate, repay,
  money, return, paid back, pay back, receive, get their money back, for each, per unit, gets back, cash back,
  credited
agenda: demand, want, ask, call for, raise, over, about, issue, dispute, pay, claim, grievance
firefighter: firefighter, fire crew, crew, fire engine, fire brigade, brigade
depth: deep, depth, below, underground, beneath, hypocentre
satellite: satellite, sat, payload, spacecraft, cubesat, probe
coin: coin, object, artefact, artifact, relic, piece, item, treasure, find
mountaineer: climber, hiker, sailor, diver, fisherman, tourist, walker, passenger, miner, crew, person, people, caver,
  skier
money: pay, sum, amount
sponsor: sponsor, fund, back, support, finance, partner, donor
weather: weather, rain, snow, sun, wind, forecast, storm
star: star, lead, cast, headline, headliner, headlining, feature, top the bill
power: power, electricity, grid, energy, megawatt
water: water, supply, main, drink, tap
use: use, utilise, adopt, apply
receive: receive, get, award, obtain, earn, win
help: help, aid, assist, support, relief, donate
join: join, sign, enter, become, member, enrol, take part
want: want, need, demand, ask, call for, seek, request
plan: plan, intend, propose, proposal, scheme, project, aim
status: status, state, update, condition, situation, latest, progress, current, news, stand
reason: reason, why, because, due, cause, trigger, blame, explain, explanation, motive
change: change, new, now, update, instead, replace, switch, revise, differ, move, correction
part: part, component, piece, valve, engine, cable, pump, battery, transformer, fibre, sensor
job: job, position, role, post, work, worker, staff, employee, roles, positions, redundancies, layoffs, posts,
  workers, people lose, lose their jobs, go, be cut, vacancy, lose
cut: cut, reduce, slash, trim, lower, cuts, cutting, axe, go, shed, lose, lost, scrap, eliminate
building: library, museum, theatre, theater, stadium, arena, hotel, mall, factory, warehouse, tower, hall, station,
  airport, church, cathedral, market, plant, mill, centre, center, house, palace, castle, park, zoo
gate: gate, platform, terminal, pier, bay, track, stand
colour: color, colour, red, blue, green, white, black, yellow, orange, grey, purple
acting: acting, interim, caretaker, temporary, temporarily, provisional, stand in, for now, in the meantime, for the
  time being, stopgap, fill in, step in, steps in, fills in
predecessor: was replaced, were replaced, is replaced, be replaced, been replaced, got replaced, being replaced, was
  succeeded, predecessor, outgoing, ousted, replaces, succeeds, replacing, succeeding, takes over from, took over
  from, taking over from, in place of, in for, instead of
speak: speak, speech, talk, address, keynote, tell, speaker, lecture, give, addressing, told reporters, spoke,
  speaking, remarks, interview, conference
species: species, animal, bird, fish, whale, bear, dog, cat, wolf
replace: replace, succeed, take over, substitute, successor, instead, stand in, fill in, new, predecessor, follow,
  successor to
own: own, owner, belong, possess, hold
lead: lead, ahead, head, front, leader, in front, on top, chair
count: count, number, total, figure, tally, toll, estimate
second: second, runner up, silver
"""
# words of one line exclude each other where they qualify the same thing
CONTRAST_LINES = """
north northern, south southern, east eastern, west western
northbound, southbound, eastbound, westbound
upper, lower
inner, outer
men, women, man, woman, boy, girl, mixed
junior, senior, youth
left, right
first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth
primary, secondary
old, new
home, away
half, full
quarter, semi, final
spring, summer, autumn, winter
morning, afternoon, evening, night
monday, tuesday, wednesday, thursday, friday, saturday, sunday
january, february, march, april, june, july, august, september, october, november, december
deputy vice assistant acting interim former, permanent
red, blue, green, yellow, orange, purple, black, white, grey
"""
# what is in one column is not, at the same time, what is in the other
OPPOSITE_LINES = """
open reopen restore resume unlock accessible | close shut suspend shutdown block outage offline
win victory beat defeat | lose loss | draw tie stalemate
pass approve adopt carry ratify accept | reject fail block veto
cancel scrub abort scrap abandon | delay postpone reschedule | launch liftoff
confirm | deny false untrue
increase rise climb grow | decrease fall drop decline
arrive land | depart leave
begin start | end finish conclude
on | off
dead die kill | alive survive unhurt
resign quit retire | appoint stay remain
guilty | innocent acquit
ahead lead | behind trail
evacuate | return
rescue | miss missing
"""


def _phrase(text: str) -> tuple[str, ...]:
    return tuple(token.stem for token in tokens(text) if token.kind in ("word", "symbol", "number"))


def _forms(member: str) -> tuple[str, ...]:
    """A word and its endings, for their stems may differ; of a phrase, those of its first word."""
    first, _, rest = member.partition(" ")
    if not first.isascii() or not first.isalpha():
        return (member,)
    forms = [first]
    if len(first) > 2:
        bare = first.removesuffix("e")
        forms += [f"{first}s", f"{first}es", f"{bare}ed", f"{bare}ing", f"{first}er", f"{first}ers"]
    return tuple(f"{form} {rest}".strip() for form in forms)


def _families() -> dict[tuple[str, ...], frozenset[str]]:
    found: dict[tuple[str, ...], set[str]] = {}
    for line in FAMILY_LINES.strip().replace("\n  ", " ").splitlines():
        name, _, members = line.partition(": ")
        for member in members.split(", "):
            for form in _forms(member):
                found.setdefault(_phrase(form), set()).add(name)
    return {phrase: frozenset(names) for phrase, names in found.items()}


def _spellings() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in FAMILY_LINES.strip().replace("\n  ", " ").splitlines():
        name, _, members = line.partition(": ")
        found[name] = {word for member in members.split(", ") for form in _forms(member) for word in words(form)[:1]}
    return found


def _contrasts() -> dict[str, frozenset[str]]:
    """Stem -> stems that exclude it."""
    found: dict[str, set[str]] = {}
    for line in CONTRAST_LINES.strip().splitlines():
        groups = [{stem(word) for word in group.split()} for group in line.split(", ")]
        for mine in groups:
            for word in mine:
                found.setdefault(word, set()).update(*(other for other in groups if other is not mine))
    return {word: frozenset(others - {word}) for word, others in found.items()}


def _opposites() -> dict[str, tuple[int, int]]:
    """Stem -> (line, column)."""
    return {
        stem(word): (number, column)
        for number, line in enumerate(OPPOSITE_LINES.strip().splitlines())
        for column, group in enumerate(line.split(" | "))
        for word in group.split()
    }


FAMILIES = _families()
_SPELLINGS = _spellings()
CONTRASTS = _contrasts()
OPPOSITES = _opposites()
# a name followed by another word of one of these is another thing: Northgate tunnel, where Northgate bridge is asked
KINDS_OF_THINGS_WORDS = """
lane train bus flight ship rocket car company team school hospital court festival exhibition film book album
product software site prize law building
"""
KINDS_OF_THINGS = frozenset(KINDS_OF_THINGS_WORDS.split())
LONGEST = max(map(len, FAMILIES))


@lru_cache(maxsize=20_000)
def concepts_of(word_stem: str) -> frozenset[str]:
    """The concepts that a single word may say."""
    return FAMILIES.get((word_stem,), frozenset())


def concepts_in(found: Sequence[Token]) -> dict[str, set[int]]:
    """Concept -> indices of the tokens that say it, phrases of several words included."""
    stems = [token.stem for token in found]
    said: dict[str, set[int]] = {}
    for start in range(len(stems)):
        for length in range(1, min(LONGEST, len(stems) - start) + 1):
            for name in FAMILIES.get(tuple(stems[start : start + length]), ()):
                said.setdefault(name, set()).update(range(start, start + length))
    return said


@lru_cache(maxsize=20_000)
def said_by(concepts: frozenset[str]) -> frozenset[str]:
    """The single words, folded, that may say one of the concepts."""
    return frozenset(word for concept in concepts for word in _SPELLINGS.get(concept, ()))
