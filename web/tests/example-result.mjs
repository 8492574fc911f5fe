// A result as a trained model would give it, to look at the page with.

const candidate = (rank, city, region, country, country_code, lat, lon, radius_km, votes) => ({
  rank, city, region, country, country_code, lat, lon, radius_km, votes, confidence: votes / 8, match_kind: 'exact',
});

const reasoning = `The photo shows a steep street with cobblestones and a yellow tram on rails set into the road. The facades are covered with patterned tiles, the balconies are of wrought iron, and the roof tiles are terracotta. A street sign is set in blue and white ceramic, and the language on the shop names is Portuguese.

Trams of this kind and colour run in Lisbon; Porto also has historic trams, but the gradient and the view down to a wide river suggest the Alfama or Bairro Alto in Lisbon. The licence plate has a blue band on its left, as in the European Union.`;

const answer = (city, country) => ({
  parse_status: 'strict', country, city, reasoning, text: `<think>${reasoning}</think>\n<answer>\ncountry: ${country}\ncity: ${city}\n</answer>`, tokens: 148, stop: 'end_of_text',
});

export const EXAMPLE = {
  schema: 1, located: true, samples: 8, parsed: 8, parse_failures: 0, refusals: 0, not_in_gazetteer: 0,
  candidates: [
    candidate(1, 'Lisbon', 'Lisbon District', 'Portugal', 'PT', 38.7167, -9.1333, 10.5, 5),
    candidate(2, 'Porto', 'Porto District', 'Portugal', 'PT', 41.1496, -8.611, 7.3, 2),
    candidate(3, 'Salvador', 'Bahia', 'Brazil', 'BR', -12.9711, -38.5108, 22.6, 1),
  ],
  answers: [answer('Lisbon', 'Portugal'), answer('Porto', 'Portugal'), answer('Salvador', 'Brazil')],
  exif_gps: { lat: 38.71, lon: -9.14 }, model: 'qwen2_5_vl', adapter: 'SwiftShader Device', prompt_sha256: '29e3837100db710ada9b184b645de26faca55a88fcef130289365a7a8f92c1b7',
  gazetteer: '2026.11.1-full', sampling: { temperature: 0.7, top_k: 0, top_p: 1, repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0 }, seed: 0,
  timings: { prompt_tokens: 412, image_tokens: 320, answer_tokens: 1184, prepare_ms: 41, prefill_ms: 2100, decode_ms: 23680 },
};
