// What the tab asks the page for: the id of a task, and what the txt2img tab says.

/**
 * Runs before the Train and Resume buttons' handlers; its answer becomes their inputs.
 * @param {...unknown} inputs
 */
function ti_train_start(...inputs) {
    const id = randomId();
    const place = gradioApp().getElementById("ti_train_progress");
    requestProgress(id, place, null, () => {}, () => {});
    return [id, ...inputs.slice(1)];
}

/**
 * Runs before the handler of "From txt2img"; its answer becomes the inputs: the word's name and that tab's values.
 * @param {string} name
 */
function ti_train_of_txt2img(name) {
    /** @param {string} id */
    function value(id) {
        const field = gradioApp().querySelector(`#${id} textarea, #${id} input`);
        return /** @type {HTMLInputElement} */ (field).value;
    }
    return [name, value("txt2img_prompt"), value("txt2img_neg_prompt"), Number(value("txt2img_seed"))];
}
