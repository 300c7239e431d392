// Script of the search page: searches, results, explanations, keys.
'use strict';
// The page of `splade serve`. Texts are set as text nodes, and never as HTML.

const at = id => document.getElementById(id);
const state = { indexes: [], hits: [], current: -1, chosen: [], compared: [], run: 0, key: '' };
const HITS = 10, FIELDS = 6, VALUES = 8;

// A new element with attributes, properties and children. Children that are not elements become text.
function make(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [option, value] of Object.entries(options)) {
    if (option.startsWith('on')) element.addEventListener(option.slice(2), value);
    else if (option in element) element[option] = value;
    else element.setAttribute(option, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

const number = value => value.toFixed(Math.abs(value) >= 100 ? 1 : 3).replace('-', '−');
// Fused scores are small: those of neighbours differ in the fourth digit.
const score = value => Math.abs(value) < 0.1 ? value.toFixed(4).replace('-', '−') : number(value);

async function send(path, body) {
  const headers = {};
  if (body) headers['content-type'] = 'application/json';
  if (state.key) headers.authorization = `Bearer ${state.key}`;
  const reply = await fetch(path, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body) });
  const answer = await reply.json();
  if (reply.ok) return answer;
  const error = new Error(answer.detail || reply.statusText);
  error.status = reply.status;
  error.pointer = answer.pointer;
  throw error;
}

function tell(text, failed = false) {
  at('status').textContent = text;
  at('status').classList.toggle('failed', failed);
}

function fail(error) {
  if (error.status === 401) {
    at('access').hidden = false;
    at('key').focus();
    return tell(state.key ? 'The server does not know this key.' : 'This server needs a key.', true);
  }
  tell(`${error.pointer ? `${error.pointer.slice(1)}: ` : ''}${error.message}`, true);
}

const index = () => state.indexes.find(index => index.name === at('index').value);
const mode = () => document.querySelector('#modes input:checked')?.value ?? 'sparse';

// Condition of the chosen values, in the language of the filter.
function condition() {
  const text = at('filter').value.trim();
  const quoted = value => JSON.stringify(String(value));
  const isClauses = /^[^:()[\]]*!?=/.test(text);
  const clauses = state.chosen.map(({ field, value }) => isClauses ? `${field}=${quoted(value)}` : `${field}:${quoted(value)}`);
  if (isClauses) return [text, ...clauses].join(',');
  return [text && clauses.length ? `(${text})` : text, ...clauses].filter(Boolean).join(' AND ');
}

function readAddress() {
  const parts = new URLSearchParams(location.search);
  at('query').value = parts.get('q') ?? '';
  at('filter').value = parts.get('filter') ?? '';
  if (state.indexes.some(index => index.name === parts.get('index'))) at('index').value = parts.get('index');
  showModes(parts.get('mode'));
  state.chosen = parts.getAll('value').map(pair => {
    const cut = pair.indexOf(':');
    return { field: pair.slice(0, cut), value: pair.slice(cut + 1) };
  }).filter(({ field }) => index()?.fields.some(known => known.name === field));
}

function writeAddress() {
  const parts = new URLSearchParams();
  if (at('query').value) parts.set('q', at('query').value);
  if (mode() !== 'sparse') parts.set('mode', mode());
  if (at('filter').value) parts.set('filter', at('filter').value);
  if (state.indexes.length > 1) parts.set('index', at('index').value);
  for (const { field, value } of state.chosen) parts.append('value', `${field}:${value}`);
  history.replaceState(null, '', parts.size ? `?${parts}` : location.pathname);
}

function showModes(wanted) {
  const modes = index()?.modes ?? [];
  const chosen = modes.includes(wanted) ? wanted : modes[0];
  at('modes').replaceChildren(at('modes').querySelector('legend'), ...modes.map(name => make('label', {},
    make('input', { type: 'radio', name: 'mode', value: name, checked: name === chosen, onchange: search }), name)));
}

async function search() {
  writeAddress();
  showChosen();
  const run = ++state.run, query = at('query').value.trim();
  if (!query || !index()) return tell('');
  const fields = index().fields.slice(0, FIELDS).map(field => field.name);
  const body = { index: index().name, query, mode: mode(), k: HITS, explain: true, snippets: 2, count_by: fields };
  if (condition()) body.filter = condition();
  const start = performance.now();
  try {
    const answer = (await send('/v1/search', body)).results[0];
    if (run !== state.run) return;
    show(answer, performance.now() - start);
  } catch (error) {
    if (run === state.run) fail(error);
  }
}

function show({ hits, counts }, milliseconds) {
  Object.assign(state, { hits, current: -1, compared: [] });
  at('comparison').hidden = true;
  at('results').replaceChildren(...hits.map(showHit));
  showCounts(counts ?? {});
  const found = hits.length ? `${hits.length} ${hits.length === 1 ? 'hit' : 'hits'}` : 'No hits';
  tell(`${found} in ${milliseconds.toFixed(0)} ms`);
}

// Part of a text with its marked words. Positions are in code points.
function marked(snippet) {
  const points = [...snippet.text], parts = [];
  let from = 0;
  for (const match of snippet.matches) {
    const start = match.start - snippet.start, end = match.end - snippet.start;
    parts.push(points.slice(from, start).join(''));
    parts.push(make('mark', match.expansion ? { className: 'expansion', title: 'met by expansion' } : {}, points.slice(start, end).join('')));
    from = end;
  }
  return [...parts, points.slice(from).join('')];
}

const KNOWN = ['rank', '_id', 'score', 'title', 'text', 'passage', 'snippets', 'terms', 'bm25_terms', 'lists'];

function showHit(hit, position) {
  const explanation = make('div', { className: 'explanation', id: `explanation-${position}`, hidden: true });
  const facts = Object.entries(hit).filter(([name, value]) => !KNOWN.includes(name) && value !== null && typeof value !== 'object');
  return make('li', { className: 'hit' },
    make('div', { className: 'head' },
      make('h2', {}, make('span', { className: 'rank' }, `${hit.rank}. `),
        make('button', { type: 'button', className: 'title', 'aria-expanded': 'false', 'aria-controls': explanation.id,
          onclick: () => toggle(position), onfocus: () => setCurrent(position) }, hit.title || hit._id)),
      make('span', { className: 'score', title: 'score' }, score(hit.score))),
    ...(hit.snippets.length ? hit.snippets : [{ text: [...hit.text].slice(0, 160).join(''), start: 0, matches: [] }])
      .map(snippet => make('p', { className: 'snippet' }, ...marked(snippet))),
    make('div', { className: 'facts' },
      make('label', {}, make('input', { type: 'checkbox', 'aria-label': `Compare hit ${hit.rank}`, onchange: event => choose(position, event.target.checked) }), 'compare'),
      make('span', {}, `id ${hit._id}`),
      ...facts.slice(0, 6).map(([name, value]) => make('span', {}, `${name} ${value}`))),
    explanation);
}

const hitElement = position => at('results').children[position];

function setCurrent(position) {
  state.current = position;
  [...at('results').children].forEach((element, at) => element.classList.toggle('current', at === position));
}

function toggle(position, open) {
  const box = at(`explanation-${position}`), shown = open ?? box.hidden;
  if (shown && !box.childElementCount) box.append(...explain(state.hits[position]));
  box.hidden = !shown;
  hitElement(position).querySelector('.title').setAttribute('aria-expanded', String(shown));
}

function bar(value, largest, kind) {
  return make('progress', { className: value < 0 ? 'negative' : kind, max: largest || 1, value: Math.abs(value), 'aria-hidden': 'true' });
}

function table(caption, heads, rows) {
  const cell = (content, name, head) => make(head ? 'th' : 'td', { className: name, ...(head ? { scope: head } : {}) }, ...[content].flat());
  const isNarrow = heads.length < 5;
  return make('table', { className: isNarrow ? '' : 'many' }, make('caption', {}, caption),
    make('thead', {}, make('tr', {}, ...heads.map(([text, name]) => cell(text, name, 'col')))),
    make('tbody', {}, ...rows.map(cells => make('tr', {}, ...cells.map((content, column) => cell(content, heads[column][1], column ? null : 'row'))))));
}

const kindOf = term => term.expansion ? 'expansion' : 'match';
const tokenOf = term => [make('mark', { className: kindOf(term) }, term.token), ...(term.expansion ? [' ', make('small', {}, 'expansion')] : [])];

// Tables of the parts of a hit's score, and the document.
function explain(hit) {
  const parts = [];
  if (hit.lists?.length) {
    parts.push(table('Place in each ranking', [['ranking', ''], ['rank', 'number'], ['score', 'number']],
      hit.lists.map(place => [place.list, place.rank === null ? '–' : String(place.rank), number(place.score)])));
  }
  if (hit.terms.length) {
    const largest = Math.max(...hit.terms.map(term => Math.abs(term.score)));
    parts.push(table('Terms that query and document share; their scores add up to the sparse score',
      [['term', ''], ['query', 'number'], ['document', 'number'], ['score', 'number'], ['', 'graph']],
      hit.terms.map(term => [tokenOf(term), number(term.query_weight), number(term.document_weight), number(term.score),
        bar(term.score, largest, kindOf(term))])));
  }
  if (hit.bm25_terms?.length) {
    const largest = Math.max(...hit.bm25_terms.map(word => Math.abs(word.score)));
    parts.push(table('Words that query and document share; their scores add up to the BM25 score',
      [['word', ''], ['score', 'number'], ['', 'graph']],
      hit.bm25_terms.map(word => [[make('mark', {}, word.token)], number(word.score), bar(word.score, largest, 'match')])));
  }
  if (hit.passage) parts.push(make('h3', {}, `Passage ${hit.passage.number} of ${hit.passage.count}`), make('p', { className: 'whole' }, hit.passage.text));
  parts.push(make('h3', {}, 'Document'), make('p', { className: 'whole' }, hit.text));
  return parts;
}

function choose(position, isChosen) {
  state.compared = state.compared.filter(other => other !== position);
  if (isChosen) state.compared.push(position);
  // the oldest of three is dropped
  if (state.compared.length > 2) hitElement(state.compared.shift()).querySelector('input').checked = false;
  if (state.compared.length === 2) compare();
  else at('comparison').hidden = true;
}

// Reasons why the first of two hits stands above the second.
function compare() {
  const [a, b] = state.compared.map(position => state.hits[position]).sort((a, b) => a.rank - b.rank);
  const name = hit => hit.title || hit._id;
  const close = make('button', { type: 'button', onclick: endComparison }, 'Close');
  const parts = [make('div', { className: 'head' }, make('h2', { id: 'comparison-title' }, `Why ${name(a)} stands above ${name(b)}`), close)];
  parts.push(make('p', {}, a.score === b.score ? `Both have the score ${score(a.score)}; the ids decide.`
    : `The scores are ${score(a.score)} and ${score(b.score)}, ${score(a.score - b.score)} apart.`));
  const short = text => [...text].length > 24 ? `${[...text].slice(0, 23).join('')}…` : text;
  const heads = [['', ''], ...[a, b].map(hit => [`${hit.rank}. ${short(name(hit))}`, 'number'])];
  if (a.lists?.length) {
    const places = new Map(b.lists.map(place => [place.list, place]));
    const shown = place => place ? `${number(place.score)} (${place.rank === null ? 'below the depth' : `rank\u00a0${place.rank}`})` : '–';
    parts.push(table('Score and rank in each ranking', heads, a.lists.map(place => [place.list, shown(place), shown(places.get(place.list))])));
  }
  const difference = (caption, left, right, label) => {
    const tokens = new Map();
    left.forEach(term => tokens.set(term.token, { term, a: term.score, b: 0 }));
    right.forEach(term => {
      const known = tokens.get(term.token);
      if (known) Object.assign(known, { b: term.score, other: term });
      else tokens.set(term.token, { other: term, a: 0, b: term.score });
    });
    const rows = [...tokens.values()].sort((x, y) => Math.abs(y.a - y.b) - Math.abs(x.a - x.b));
    const largest = Math.max(...rows.map(row => Math.abs(row.a - row.b)));
    if (rows.length) parts.push(table(caption, [...heads, ['difference', 'number'], ['', 'graph']], rows.map(row => [label(row),
      row.a ? number(row.a) : '–', row.b ? number(row.b) : '–', `${row.a > row.b ? '+' : ''}${number(row.a - row.b)}`, bar(row.a - row.b, largest, 'match')])));
  };
  // a term may be in the text of one document, and an expansion of the other
  const label = ({ term, other }) => {
    const kinds = [[a, term], [b, other]].filter(([, term]) => term?.expansion).map(([hit]) => `${hit.rank}.`);
    return [make('mark', { className: kindOf(term ?? other) }, (term ?? other).token), ...(kinds.length ? [' ', make('small', {}, `expansion of ${kinds.join(' and ')}`)] : [])];
  };
  difference('Scores of terms, the largest difference first', a.terms, b.terms, label);
  difference('Scores of words in BM25, the largest difference first', a.bm25_terms ?? [], b.bm25_terms ?? [], ({ term, other }) => [make('mark', {}, (term ?? other).token)]);
  at('comparison').replaceChildren(...parts);
  at('comparison').hidden = false;
  at('comparison').focus();
}

function endComparison() {
  const last = state.compared.at(-1);
  for (const position of state.compared) hitElement(position).querySelector('input').checked = false;
  state.compared = [];
  at('comparison').hidden = true;
  if (last !== undefined) hitElement(last).querySelector('.title').focus();
}

function showCounts(counts) {
  const boxes = Object.entries(counts).filter(([, { values }]) => values.length).map(([field, { values }]) => make('div', {}, make('h3', {}, field),
    make('ul', {}, ...values.slice(0, VALUES).map(({ value, count }) => make('li', {}, make('button', { type: 'button',
      'aria-label': `${field} ${value}, ${count} documents`, onclick: () => addValue(field, value) }, make('span', {}, String(value)), make('span', {}, String(count))))))));
  at('fields').hidden = !boxes.length;
  document.querySelector('.columns').classList.toggle('has-fields', boxes.length > 0);
  const wide = matchMedia('(min-width: 56rem)').matches;
  at('fields').replaceChildren(make('details', { open: wide }, make('summary', {}, 'Counts by field'), ...boxes));
}

function addValue(field, value) {
  if (!state.chosen.some(other => other.field === field && other.value === String(value))) state.chosen.push({ field, value: String(value) });
  at('query').focus();
  search();
}

function showChosen() {
  at('chosen').replaceChildren(...state.chosen.map(({ field, value }, position) => make('li', {}, make('button', { type: 'button',
    'aria-label': `Remove ${field} ${value}`, onclick: () => { state.chosen.splice(position, 1); at('query').focus(); search(); } }, `${field}: ${value} ×`))));
}

function move(step) {
  const next = Math.min(Math.max(state.current + step, -1), state.hits.length - 1);
  if (next < 0) return at('query').focus();
  hitElement(next).querySelector('.title').focus();
  hitElement(next).scrollIntoView({ block: 'nearest' });
}

function leave() {
  if (!at('comparison').hidden) return endComparison();
  const open = [...document.querySelectorAll('.explanation:not([hidden])')];
  if (open.length) return open.forEach(box => toggle(Number(box.id.split('-')[1]), false));
  setCurrent(-1);
  at('query').focus();
  at('query').select();
}

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches('input[type=text], input[type=search], input[type=password], select');
  const isRadio = event.target.matches('input[type=radio]');
  const inQuery = event.target === at('query');
  if (event.key === 'Escape') { event.preventDefault(); leave(); }
  else if (event.key === '/' && !isTyping) { event.preventDefault(); at('query').focus(); at('query').select(); }
  else if (event.key === 'ArrowDown' && (!isTyping || inQuery) && !isRadio) { event.preventDefault(); move(1); }
  else if (event.key === 'ArrowUp' && (!isTyping || inQuery) && !isRadio) { event.preventDefault(); move(-1); }
  else if (event.key === 'c' && !isTyping && state.current >= 0) hitElement(state.current).querySelector('input').click();
});
at('query').addEventListener('focus', () => setCurrent(-1));
at('search').addEventListener('submit', event => { event.preventDefault(); search(); });
at('filter').addEventListener('change', search);
at('index').addEventListener('change', () => { state.chosen = []; showModes(mode()); search(); });
at('access').addEventListener('submit', event => {
  event.preventDefault();
  state.key = at('key').value.trim();
  start();
});

async function start() {
  try {
    state.indexes = (await send('/v1/indexes')).indexes;
    at('access').hidden = true;
    at('index').replaceChildren(...state.indexes.map(({ name, documents }) => make('option', { value: name }, `${name} (${documents})`)));
    at('choice').hidden = state.indexes.length < 2;
    document.title = state.indexes.length === 1 ? `Search ${state.indexes[0].name}` : 'Search';
    tell(state.indexes.map(({ name, documents }) => `${name}: ${documents} documents`).join(' · '));
    readAddress();
    if (at('query').value) search();
  } catch (error) {
    fail(error);
  }
}
start();
